"""A sweep as a table, plots and a recipe: what was tried, what made the difference, what to train with."""

import math
from typing import Any

import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, StrMethodFormatter
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from training import plotting
from training import recipe as recipes
from training.evaluation.intervals import wilson
from training.fit.run import read_manifest
from training.fit.sweep import Sweep, finished, short

MARKDOWN, PLOT, BEST = "sweep.md", "sweep.png", "best.yaml"
COLUMNS = 3  # of the plots of single entries
FEWEST = 10  # completed trials that an importance is computed from: fewer say nothing
_STATES = {TrialState.COMPLETE: "", TrialState.PRUNED: "stopped early", TrialState.FAIL: "failed"}


def write(sweep: Sweep, study: Study) -> str:
    """Write sweep.md, sweep.png and best.yaml into the sweep's folder and return the Markdown."""
    best = sweep.best(study)
    shares = importances(study)
    text = markdown(sweep, study, shares)
    (sweep.folder / MARKDOWN).write_text(text, encoding="utf-8")
    plotting.save(draw(study, shares), sweep.folder / PLOT)
    recipes.save(best, sweep.folder / BEST)
    return text


def importances(study: Study) -> dict[str, float]:
    """Return each entry's share (0-1) in the differences (PED-ANOVA, arXiv 2304.10255), the largest first.

    Empty when too few trials have completed or all are equally good.
    """
    done = [trial.value for trial in study.trials if trial.state is TrialState.COMPLETE]
    if len(done) < FEWEST or len(set(done)) == 1:
        return {}
    shares = optuna.importance.get_param_importances(study)
    return {name: share for name, share in shares.items() if math.isfinite(share)}


def markdown(sweep: Sweep, study: Study, shares: dict[str, float]) -> str:
    """Return the tables: the trials, the best first, and the entries' importances."""
    best = study.best_trial
    count = len(read_manifest(sweep.run_of(study, best)).part("val"))
    low, high = wilson(round(study.best_value * count), count)
    entries = [dimension.entry for dimension in sweep.space]
    lines = [
        f"# Sweep of {sweep.recipe.name}",
        "",
        f"{len(finished(study))} trials of {sweep.recipe.epochs} epochs at most. The best one's validation accuracy is "
        f"{100 * study.best_value:.2f} % ({100 * low:.1f}-{100 * high:.1f}, 95 % interval of {count} images): "
        "being the best of many it is flattered, and smaller differences than this interval may be chance. "
        "The test split was not looked at.",
        "",
        f"| trial | validation accuracy | epochs | minutes | {' | '.join(entries)} | |",
        "| --- " * (len(entries) + 5) + "|",
        *(_row(trial, entries) for trial in sorted(finished(study), key=_rank)),
    ]
    if shares:
        lines += ["", "| entry | share in the differences |", "| --- | --- |"]
        lines += [f"| {name} | {100 * share:.0f} % |" for name, share in shares.items()]
    return "\n".join(
        [*lines, "", f"`{BEST}` is the recipe of trial {best.number}: `fit -c {sweep.folder / BEST}`.", ""]
    )


def draw(study: Study, shares: dict[str, float]) -> Figure:
    """Return the history of the trials and, for every entry, accuracy over its values."""
    trials = [trial for trial in finished(study) if trial.value is not None]
    entries = sorted({name for trial in trials for name in trial.params}, key=lambda name: (-shares.get(name, 0), name))
    rows = -(-len(entries) // COLUMNS)
    figure = Figure(figsize=(10.5, 3.4 + 2.9 * rows), layout="constrained")
    grid = figure.add_gridspec(rows + 1, COLUMNS, height_ratios=[3.4] + [2.9] * rows)
    history = figure.add_subplot(grid[0, :])
    _history(history, study, trials)
    for index, name in enumerate(entries):
        axes = figure.add_subplot(grid[1 + index // COLUMNS, index % COLUMNS], sharey=history)
        _slice(axes, name, trials, study.best_trial, shares.get(name))
        if index % COLUMNS == 0:
            axes.set_ylabel("validation accuracy, %", fontsize=9)
    return figure


def _history(axes: Axes, study: Study, trials: list[FrozenTrial]) -> None:
    numbers = [trial.number for trial in trials]
    done = [100 * _value(t) if t.state is TrialState.COMPLETE else -math.inf for t in trials]
    axes.step(
        numbers, np.maximum.accumulate(done), where="post", color=plotting.ACCENT, linewidth=1.5, label="best so far"
    )
    _dots(axes, numbers, trials)
    failed = len([trial for trial in finished(study) if trial.state is TrialState.FAIL])
    title = f"{len(trials) + failed} trials, the best {100 * study.best_value:.2f} %"
    axes.set_title(title + (f"; {failed} failed" if failed else ""), color=plotting.INK, fontsize=11, loc="left")
    axes.set(xlabel="trial", ylabel="validation accuracy, %")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=3)
    plotting.plain(axes)


def _slice(axes: Axes, name: str, trials: list[FrozenTrial], best: FrozenTrial, share: float | None) -> None:
    tried = [trial for trial in trials if name in trial.params]
    values = [trial.params[name] for trial in tried]
    distribution = tried[0].distributions[name]
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        choices = list(distribution.choices)
        values = [choices.index(value) for value in values]
        axes.set_xticks(range(len(choices)), [str(choice) for choice in choices], parse_math=False)
        axes.set_xlim(-0.5, len(choices) - 0.5)
    else:
        _bounds(axes, distribution)
    _dots(axes, values, tried)
    index = tried.index(best) if best in tried else 0
    axes.axvline(values[index], color=plotting.ACCENT, linewidth=1, linestyle="--", zorder=1)
    percent = "" if share is None else f"  ({100 * share:.0f} %)"
    axes.set_title(name + percent, color=plotting.INK, fontsize=9)
    plotting.plain(axes)


def _bounds(axes: Axes, distribution: Any) -> None:
    """Show the whole range that was searched, with plain numbers."""
    if distribution.log:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        room = (distribution.high / distribution.low) ** 0.04
        axes.set_xlim(distribution.low / room, distribution.high * room)
    else:
        room = 0.04 * (distribution.high - distribution.low)
        axes.set_xlim(distribution.low - room, distribution.high + room)
    if isinstance(distribution, optuna.distributions.IntDistribution):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _dots(axes: Axes, positions: list[float] | list[int], trials: list[FrozenTrial]) -> None:
    for state, face, label in (
        (TrialState.COMPLETE, plotting.ACCENT, "completed"),
        (TrialState.PRUNED, "white", "stopped early"),
    ):
        indices = [index for index, trial in enumerate(trials) if trial.state is state]
        across = [positions[index] for index in indices]
        height = [100 * _value(trials[index]) for index in indices]
        if indices:
            axes.scatter(across, height, 28, face, edgecolors=plotting.ACCENT, zorder=3, label=label)


def _row(trial: FrozenTrial, entries: list[str]) -> str:
    accuracy = f"{100 * trial.value:.2f} %" if trial.value is not None else ""
    minutes = f"{trial.duration.total_seconds() / 60:.1f}" if trial.duration is not None else ""
    values = " | ".join(short(trial.params.get(entry, "")) for entry in entries)
    remark = trial.user_attrs.get("error", _STATES[trial.state])
    return f"| {trial.number} | {accuracy} | {trial.user_attrs.get('epochs', '')} | {minutes} | {values} | {remark} |"


def _rank(trial: FrozenTrial) -> tuple[int, float, int]:
    order = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL).index(trial.state)
    return order, -(trial.value if trial.value is not None else 0), trial.number


def _value(trial: FrozenTrial) -> float:
    if trial.value is None:
        raise ValueError("only trials with a value are drawn")
    return trial.value
