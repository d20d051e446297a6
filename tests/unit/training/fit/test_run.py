"""A run goes on with what it was begun with: what differs is named, and nothing is trained, kept or lost silently."""

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file

from tests.unit.training import synthetic_images
from tests.unit.training.markers import LIGHTNING
from training.__main__ import main
from training.fit.run import Run, prepare, read_manifest
from training.fit.trainer import fit
from training.recipe import Optimizer, Recipe, Stage
from training.tracking import image_grid
from visionserve.errors import BundleError

pytestmark = LIGHTNING


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return synthetic_images.image_folder(tmp_path / "colours")


@pytest.fixture
def begun(root: Path, tmp_path: Path) -> tuple[Recipe, Run]:
    recipe, run = synthetic_images.recipe(root), Run(tmp_path / "run")
    prepare(recipe, run, fresh=True)
    return recipe, run


def _image(root: Path) -> None:
    synthetic_images.image((200, 20, 20), 7777).save(root / "red" / "new.png")


def _label(root: Path) -> None:
    synthetic_images.image_folder(root / "more")
    (root / "more" / "red").rename(root / "violet")
    shutil.rmtree(root / "more")


def _fewer(root: Path) -> None:
    (root / "red" / "00.png").unlink()


def _changed(root: Path) -> None:
    synthetic_images.image((200, 20, 20), 7777).save(root / "red" / "00.png")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_image, r"which now has 1 more \(red/new\.png\)\."),
        (_label, r"which now has 12 more .* and 1 new label \(violet\)"),
        (_fewer, r"red/00\.png is missing or changed"),
        (_changed, r"red/00\.png is missing or changed"),
    ],
)
def test_a_folder_that_changed_is_named_with_what_to_do(
    begun: tuple[Recipe, Run], root: Path, change: Callable[[Path], None], sentence: str
) -> None:
    change(root)
    with pytest.raises(BundleError, match=sentence) as caught:
        prepare(*begun, fresh=False)
    assert "--resume none" in str(caught.value)


def test_one_goes_on_without_what_is_new_by_the_runs_own_manifest(begun: tuple[Recipe, Run], root: Path) -> None:
    recipe, run = begun
    _image(root)
    before = read_manifest(run)
    assert prepare(replace(recipe, data=replace(recipe.data, manifest=str(run.manifest))), run, fresh=False) == before


def test_another_root_is_refused_and_the_same_files_elsewhere_are_said(
    begun: tuple[Recipe, Run], root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe, run = begun
    moved = root.rename(tmp_path / "moved")
    prepare(replace(recipe, data=replace(recipe.data, root=str(moved))), run, fresh=False)
    assert f"now read from {moved}: the same files" in caplog.text
    assert json.loads(run.facts.read_text())["root"] == str(moved)
    other = synthetic_images.image_folder(tmp_path / "other", per_label=4)
    with pytest.raises(BundleError, match=rf"with the images of {moved}, not with those of {other}"):
        prepare(replace(recipe, data=replace(recipe.data, root=str(other))), run, fresh=False)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"optimizer": Optimizer(learning_rate=0.01, head_epochs=0, average_decay=0.9)},
            "learning_rate 0.05, not 0",
        ),
        ({"seed": 2}, "seed 1, not 2"),
        ({"batch_size": 4}, "batch_size 8, not 4"),
        ({"architecture": "resnet18"}, "architecture shufflenet_v2_x0_5, not resnet18"),
        ({"stages": (Stage(1.0, 24),)}, r"stages\.0\.until 0\.5, not 1\.0"),
    ],
    ids=str,
)
def test_other_options_are_refused_by_name(begun: tuple[Recipe, Run], changes: dict[str, Any], named: str) -> None:
    recipe, run = begun
    kept = run.recipe.read_bytes()
    with pytest.raises(BundleError, match=named):
        prepare(replace(recipe, **changes), run, fresh=False)
    assert run.recipe.read_bytes() == kept


def test_more_epochs_are_applied_and_said_and_the_machine_may_change(
    begun: tuple[Recipe, Run], caplog: pytest.LogCaptureFixture
) -> None:
    recipe, run = begun
    prepare(replace(recipe, data=replace(recipe.data, workers=2)), run, fresh=False)
    assert not caplog.records
    prepare(replace(recipe, epochs=9), run, fresh=False)
    assert "goes on with other entries: epochs 3 -> 9" in caplog.text


def test_another_version_of_a_finished_run_is_refused_and_the_same_command_says_that_it_trains_nothing(
    begun: tuple[Recipe, Run], caplog: pytest.LogCaptureFixture
) -> None:
    recipe, run = begun
    run.weights.touch()
    with pytest.raises(BundleError, match=r"was finished with version 1\.0, not 1\.1\. Train again: "):
        prepare(replace(recipe, version="1.1"), run, fresh=False)
    prepare(recipe, run, fresh=False)
    assert "is finished: nothing is trained. --resume none trains it again" in caplog.text


def test_a_checkpoint_of_a_run_on_other_images_is_refused(begun: tuple[Recipe, Run], tmp_path: Path) -> None:
    recipe, run = begun
    run.checkpoints.mkdir()
    (run.checkpoints / "last.ckpt").write_bytes(b"")
    other = replace(recipe, data=replace(recipe.data, seed=9))
    with pytest.raises(BundleError, match="of a run on other images"):
        fit(other, Run(tmp_path / "other"), resume=str(run.checkpoints / "last.ckpt"))


class Spoiler(Callback):
    """Makes the weights of an epoch not finite, as a rate that is too high does."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: object) -> None:
        if trainer.current_epoch == self._epoch:
            for parameter in module.parameters():
                parameter.data.fill_(float("nan"))


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_run_that_diverges_stops_with_a_sentence_and_ships_nothing(root: Path, tmp_path: Path, epoch: int) -> None:
    run = Run(tmp_path / "run")
    with pytest.raises(BundleError, match=rf"loss of epoch {epoch} is nan\. The training diverged: lower --optimizer"):
        fit(synthetic_images.recipe(root), run, callbacks=[Spoiler(epoch)])
    assert not run.weights.exists()
    assert (run.checkpoints / "best.ckpt").exists() == (epoch > 0)


def test_a_rate_far_too_high_ends_the_command_with_1(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from training import recipe as recipes

    recipes.save(synthetic_images.recipe(root), tmp_path / "recipe.yaml")
    command = ["fit", "-c", str(tmp_path / "recipe.yaml"), "--run", str(tmp_path / "run")]
    assert main([*command, "--optimizer.learning_rate", "1e12"]) == 1
    assert "The training diverged" in capsys.readouterr().err


class Scores(Callback):
    """Gives the epochs of a run accuracies, and losses, of our own."""

    def __init__(self, *scores: float, losses: tuple[float, ...] = ()) -> None:
        self._scores, self._losses = scores, losses
        self.epochs = 0

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:  # noqa: ARG002
        self.epochs = trainer.current_epoch + 1
        trainer.callback_metrics["val/accuracy"] = torch.tensor(self._scores[trainer.current_epoch])
        if self._losses:
            trainer.callback_metrics["val/loss"] = torch.tensor(self._losses[trainer.current_epoch])


def test_of_equal_accuracies_the_lowest_loss_is_best_and_patience_counts_from_there(root: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    scores = Scores(0.5, 1.0, 1.0, 1.0, 1.0, 1.0, losses=(0.9, 0.8, 0.2, 0.3, 0.4, 0.1))
    fit(synthetic_images.recipe(root, epochs=6, patience=2), run, callbacks=[scores])
    assert json.loads(run.facts.read_text())["epoch"] == 2
    assert scores.epochs == 5  # two without a better one after the third


def test_a_run_whose_folder_was_moved_keeps_its_best_epoch(root: Path, tmp_path: Path) -> None:
    recipe, run = synthetic_images.recipe(root, epochs=2), Run(tmp_path / "run")
    fit(recipe, run, callbacks=[Scores(0.5, 0.9)])
    best = load_file(run.weights)
    run.folder.rename(tmp_path / "moved")
    moved = Run(tmp_path / "moved")
    accuracy = fit(replace(recipe, epochs=4), moved, resume="auto", callbacks=[Scores(0.5, 0.9, 0.6, 0.7)])
    assert accuracy == pytest.approx(0.9)
    assert json.loads(moved.facts.read_text())["epoch"] == 1
    assert all(torch.equal(tensor, best[name]) for name, tensor in load_file(moved.weights).items())


def test_a_label_with_dollars_is_drawn_and_a_figure_that_fails_ends_no_run(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (root / "red").rename(root / "Ba$$in _^{ $x|y")
    fit(synthetic_images.recipe(root, epochs=1), Run(tmp_path / "run"))
    assert "cannot be drawn" not in caplog.text
    assert main(["data", "describe", "imagefolder", "--root", str(root), "--output", str(tmp_path / "report")]) == 0
    monkeypatch.setattr(image_grid, "samples", lambda *_: 1 / 0)
    run = Run(tmp_path / "other")
    fit(synthetic_images.recipe(root, epochs=1), run)
    assert run.weights.is_file()
    assert "the figures of the best epoch cannot be drawn" in caplog.text


def test_what_was_read_is_said_when_a_run_begins(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    (root / "red" / "photo.jxl").write_bytes(b"x")
    prepare(synthetic_images.recipe(root), Run(tmp_path / "run"), fresh=True)
    assert "36 images of 3 labels" in caplog.text
    assert "red: train" in caplog.text
    assert ".jxl is not read" in caplog.text
