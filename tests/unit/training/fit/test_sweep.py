import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from tests.unit.training import synthetic_images
from tests.unit.training.markers import LIGHTNING
from training import plotting
from training import recipe as recipes
from training.__main__ import main
from training.fit import search_space, sweep_report
from training.fit.search_space import Dimension
from training.fit.sweep import Sweep, finished
from training.recipe import Recipe, Stage
from visionserve.errors import BundleError

pytestmark = LIGHTNING
RATES = (Dimension("optimizer.learning_rate", 0.01, 0.1, log=True), Dimension("batch_size", 4, 8, step=4, whole=True))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    root = synthetic_images.image_folder(tmp_path_factory.mktemp("data") / "colours", per_label=6)
    return synthetic_images.recipe(root, epochs=2, stages=(Stage(1.0, 24),))


def write(folder: Path, recipe: Recipe, text: str) -> list[str]:
    recipes.save(recipe, folder / "recipe.yaml")
    (folder / "space.yaml").write_text(text, encoding="utf-8")
    return [
        "sweep",
        "-c",
        str(folder / "recipe.yaml"),
        "--space",
        str(folder / "space.yaml"),
        "--run",
        str(folder / "run"),
    ]


@pytest.mark.slow
def test_a_killed_sweep_goes_on_to_the_wanted_number_of_trials(recipe: Recipe, tmp_path: Path) -> None:
    long = replace(recipe, epochs=6)
    command = write(tmp_path, long, "optimizer.learning_rate: {low: 0.01, high: 0.1, log: true}")
    process = subprocess.Popen([sys.executable, "-m", "training", *command, "--trials", "3"], stdout=subprocess.PIPE)
    second = tmp_path / "run" / "trials" / "001" / "checkpoints"
    deadline = time.monotonic() + 600
    while not list(second.glob("*.ckpt")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()

    dimensions = search_space.load(tmp_path / "space.yaml", long)
    sweep = Sweep(long, dimensions, tmp_path / "run", tmp_path / "cache")
    study = sweep.run(3, None)
    assert len(finished(study)) == 3
    broken, again = study.trials[1], study.trials[2]
    assert broken.state is TrialState.FAIL
    assert again.user_attrs["repeats"] == 1
    assert again.params == broken.params
    assert sweep.run_of(study, again).folder == tmp_path / "run" / "trials" / "001"
    assert len(again.intermediate_values) == 6  # with those from before it was killed
    assert len({trial.params["optimizer.learning_rate"] for trial in finished(study)}) == 3
    assert len(sweep.run(3, None).trials) == 4  # nothing is left to do

    with pytest.raises(BundleError, match="another recipe"):
        Sweep(replace(long, seed=2), dimensions, tmp_path / "run", tmp_path / "cache").run(3, None)


def test_a_sweep_leaves_a_table_a_plot_and_a_recipe_that_fits(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = write(
        tmp_path, recipe, "batch_size: {low: 4, high: 8, step: 4}\ninit: {choices: [none, gone.safetensors]}"
    )
    assert main([*command, "--trials", "5"]) == 0
    printed = capsys.readouterr().out
    assert "trial 5 of 5" in printed
    table = (tmp_path / "run" / "sweep.md").read_text(encoding="utf-8")
    assert table in printed
    assert (tmp_path / "run" / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert "file gone.safetensors does not exist" in table  # a trial that failed is in the table
    best = recipes.load(tmp_path / "run" / "best.yaml")
    assert best == recipes.revise(recipe, {"batch_size": best.batch_size})
    assert not list((tmp_path / "run" / "trials").glob("*/checkpoints"))


def test_the_entry_that_makes_the_difference_has_the_largest_share(tmp_path: Path) -> None:
    study = optuna.create_study(direction="maximize")
    bounds = {"rate": FloatDistribution(0.001, 0.1, log=True), "policy": CategoricalDistribution(("a", "b"))}
    assert sweep_report.importances(study) == {}
    for number in range(20):
        params = {"rate": 10 ** (-3 + number / 10), "policy": "ab"[number % 2]}
        study.add_trial(optuna.create_trial(params=params, distributions=bounds, value=0.5 + number / 100))
    seen = {0: 0.4}
    study.add_trial(
        optuna.create_trial(state=TrialState.PRUNED, params=params, distributions=bounds, intermediate_values=seen)
    )
    shares = sweep_report.importances(study)
    assert list(shares) == ["rate", "policy"]
    assert shares["rate"] > 0.8
    plotting.save(sweep_report.draw(study, shares), tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")


class Spoiler(Callback):
    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: object) -> None:  # noqa: ARG002
        for parameter in module.parameters():
            parameter.data.fill_(float("nan"))


def test_a_trial_whose_loss_is_no_number_has_failed(recipe: Recipe, tmp_path: Path) -> None:
    sweep = Sweep(recipe, RATES, tmp_path / "run", tmp_path / "cache")
    study = sweep.run(3, None, Spoiler())
    assert [trial.state for trial in study.trials] == [TrialState.FAIL]  # and the first failure ends the sweep
    with pytest.raises(BundleError, match=r"no trial has finished: the val/loss of epoch 0 is nan"):
        sweep_report.write(sweep, study)


def test_a_second_sweep_in_the_folder_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    code = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(1, flush=True); input()"
    (tmp_path / "run").mkdir()
    arguments = [sys.executable, "-c", code, str(tmp_path / "run" / "sweep.lock")]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(BundleError, match="another sweep is running"):
            Sweep(recipe, RATES, tmp_path / "run", tmp_path / "cache").run(1, None)
        other.kill()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("optimizer.lr: {low: 0.1, high: 1.0}", "no entry optimizer.lr"),
        ("optimizer: {choices: [1]}", "no entry optimizer"),
        ("optimizer.learning_rate: {low: 0.1}", "high must be a number"),
        ("optimizer.learning_rate: {low: 1e-3, high: 1.0}", r"low must be a number, not '1e-3'.*1\.0e-3"),
        ("optimizer.learning_rate: {low: 1.0, high: 0.1}", "low must be below high"),
        ("optimizer.learning_rate: {low: 0, high: 0.1, log: true}", "above 0"),
        ("optimizer.learning_rate: {low: 0.1, high: 1.0, log: true, step: 0.1}", "excludes a step"),
        ("optimizer.learning_rate: {low: 0.1, high: 1.0, base: 2}", "needs {low, high}"),
        ("optimizer.learning_rate: 0.1", "needs {low, high}"),
        ("epochs: {low: 1.5, high: 3}", "epochs is a whole number"),
        ("input.crop: {low: 0.5, high: 2.0}", "input.crop is a share"),
        ("augment.policy: {choices: [trivial, strange]}", "augment.policy"),
        ("augment.policy: {choices: []}", "choices is a list"),
        ("stages.0.freeze: {choices: [[conv1]]}", "a choice is a number"),
        ("", "is not a search space"),
        ("a: [", "not a readable search space"),
    ],
    ids=lambda value: value if value.isidentifier() else "",
)
def test_a_bad_space_is_one_sentence(text: str, complaint: str, recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(BundleError, match=complaint) as caught:
        search_space.load(tmp_path / "space.yaml", recipe)
    assert "\n" not in str(caught.value)


def test_the_space_that_is_shipped_fits_its_recipe() -> None:
    folder = Path(recipes.__file__).parents[1]
    shipped = recipes.load(folder / "recipes" / "flowers102.yaml")
    assert len(search_space.load(folder / "search_spaces" / "flowers102.yaml", shipped)) == 7


@pytest.mark.parametrize(("trials", "devices"), [(0, 1), (1, 2)], ids=["no trials", "two devices"])
def test_a_sweep_that_cannot_run_is_refused(trials: int, devices: int, recipe: Recipe, tmp_path: Path) -> None:
    many = replace(recipe, machine=replace(recipe.machine, devices=devices))
    with pytest.raises(BundleError, match=r"at least one trial|one process"):
        Sweep(many, RATES, tmp_path / "run", tmp_path).run(trials, None)
