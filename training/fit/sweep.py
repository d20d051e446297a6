"""Sweep: many short runs of a recipe, each with other values for some entries, to find those that validate best.

    <run>/study.db  trials/000/ ...  sweep.md  sweep.png  best.yaml

The study in ``study.db`` is Optuna's. A trial that is interrupted stays unfinished there; the next start of the same
sweep marks it as failed and repeats it first, in the same folder, where its run goes on from its checkpoint. The test
split plays no part.
"""

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from training import recipe as recipes
from training.fit import search_space as spaces
from training.fit.run import Run
from training.fit.search_space import Space
from training.fit.trainer import fit
from training.recipe import Recipe
from visionserve.errors import BundleError

NAME = "sweep"
STARTUP = 5  # trials that are never pruned, and those that a pruned one is compared with


@dataclass(frozen=True)
class Sweep:
    """A recipe, the space around it, and the folder where its trials are."""

    recipe: Recipe
    space: Space
    folder: Path
    cache: Path

    def run(self, trials: int, timeout_s: float | None, *callbacks: Callback) -> Study:
        """Go on until there are ``trials`` in all; after ``timeout_s`` seconds no further one is begun."""
        if self.recipe.machine.devices > 1 or self.recipe.machine.nodes > 1:
            raise BundleError("a sweep runs its trials in one process: --machine.devices 1 --machine.nodes 1")
        if trials < 1:
            raise BundleError(f"a sweep needs at least one trial, not {trials}")
        self.folder.mkdir(parents=True, exist_ok=True)
        with _alone(self.folder):
            study = self._study()
            _repeat_interrupted(study)
            missing = trials - len(finished(study))
            if missing > 0:
                study.optimize(
                    lambda trial: self._try(study, trial, callbacks),
                    n_trials=missing,
                    timeout=timeout_s,
                    catch=(Exception,),  # a trial that fails is a result too
                    callbacks=[lambda study, trial: print(_line(study, trial, trials), flush=True)],
                    gc_after_trial=True,
                )
        return study

    def best(self, study: Study) -> Recipe:
        """Return the recipe of the best trial; a BundleError when none has finished."""
        ended = [trial for trial in finished(study) if trial.state is TrialState.COMPLETE]
        if not ended:
            errors = [trial.user_attrs["error"] for trial in finished(study) if "error" in trial.user_attrs]
            raise BundleError(f"no trial has finished: {errors[-1] if errors else 'there was none'}")
        return recipes.revise(self.recipe, study.best_params)

    def run_of(self, study: Study, trial: Trial | FrozenTrial) -> Run:
        """Return where a trial's run is: a repeated one has the folder of the first attempt."""
        number = trial.number
        while "repeats" in (attributes := study.trials[number].user_attrs):
            number = attributes["repeats"]
        return Run(self.folder / "trials" / f"{number:03}")

    def _study(self) -> Study:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            storage=f"sqlite:///{(self.folder / 'study.db').resolve()}",
            study_name=NAME,
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(STARTUP, n_warmup_steps=self.recipe.optimizer.head_epochs + 1),
        )
        # Another seed at every start: with the same one the sampler would begin again with the values it has tried.
        study.sampler = optuna.samplers.TPESampler(seed=self.recipe.seed + len(study.trials))
        expected = {"recipe": recipes.plain(self.recipe), "space": spaces.plain(self.space)}
        for name, content in expected.items():
            begun = study.user_attrs.get(name)
            if begun is None:
                study.set_user_attr(name, content)
            elif begun != json.loads(json.dumps(content)):
                raise BundleError(f"{self.folder} was begun with another {name}: give it back, or another --run")
        return study

    def _try(self, study: Study, trial: Trial, callbacks: tuple[Callback, ...]) -> float:
        values = {dimension.entry: dimension.suggest(trial) for dimension in self.space}
        run = self.run_of(study, trial)
        watch = _Watch(trial, study.trials[trial.user_attrs["repeats"]] if "repeats" in trial.user_attrs else None)
        try:
            recipe = recipes.revise(self.recipe, values)
            accuracy = fit(recipe, run, resume="auto", cache=self.cache, callbacks=[*callbacks, watch])
        except Exception as error:
            trial.set_user_attr("error", " ".join(str(error).split()) or type(error).__name__)
            if isinstance(error, BundleError) and not any(one.state is TrialState.COMPLETE for one in study.trials):
                study.stop()  # what is wrong with the first trial is wrong with the recipe
            raise
        finally:
            trial.set_user_attr("epochs", watch.epochs)
        shutil.rmtree(run.checkpoints, ignore_errors=True)  # ten times the size of the rest
        if watch.pruned:
            raise optuna.TrialPruned
        return accuracy


def finished(study: Study) -> list[FrozenTrial]:
    """Return the trials that count: completed, pruned, or failed by themselves rather than interrupted."""
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    return [trial for trial in study.trials if trial.state in ended or "error" in trial.user_attrs]


class _Watch(Callback):
    """Reports each epoch's validation accuracy."""

    def __init__(self, trial: Trial, before: FrozenTrial | None) -> None:
        self._trial = trial
        self._known = dict(before.intermediate_values) if before is not None else {}
        for epoch, accuracy in self._known.items():
            trial.report(accuracy, epoch)
        self.pruned = False

    @property
    def epochs(self) -> int:
        """How many epochs have been validated."""
        return len(self._known)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:  # noqa: ARG002
        """Look at the figures of the epoch."""
        epoch = trainer.current_epoch
        if epoch not in self._known:
            self._known[epoch] = float(trainer.callback_metrics["val/accuracy"])
            self._trial.report(self._known[epoch], epoch)
        if self._trial.should_prune():
            self.pruned = trainer.should_stop = True


def _repeat_interrupted(study: Study) -> None:
    """Mark what a killed sweep left unfinished as failed, and put it first in the queue."""
    repeated = {trial.user_attrs.get("repeats") for trial in study.trials}
    for trial in study.trials:
        if trial.state is TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)
        elif trial.state is not TrialState.FAIL or "error" in trial.user_attrs:
            continue
        if trial.number not in repeated and trial.params:
            study.enqueue_trial(trial.params, user_attrs={"repeats": trial.number})


def _line(study: Study, trial: FrozenTrial, trials: int) -> str:
    values = ", ".join(f"{name} {short(value)}" for name, value in trial.params.items())
    if trial.state is TrialState.COMPLETE and trial.value is not None:
        outcome = f"{100 * trial.value:.2f} % (best so far {100 * study.best_value:.2f} %)"
    else:
        outcome = trial.user_attrs.get("error", "stopped early, others were better")
    return f"trial {len(finished(study))} of {trials}: {outcome}; {values}"


def short(value: Any) -> str:
    """Return a value of an entry as a table or a line shows it."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a second sweep out of the folder: it would take this one's trial for an interrupted one."""
    with (folder / "sweep.lock").open("w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock: loading processes would inherit it
        except OSError as error:
            raise BundleError(f"another sweep is running in {folder}: wait for it, or give another --run") from error
        yield
