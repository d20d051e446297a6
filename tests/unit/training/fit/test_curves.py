"""Learning curves: a line per epoch in curves.csv, a picture, and a section of the bundle's report."""

import csv
import logging
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.training import synthetic_images
from tests.unit.training.learning_curves import curves as logged
from tests.unit.training.markers import LIGHTNING
from training.evaluation import curves
from training.fit import trainer
from training.fit.run import Run
from training.recipe import Recipe

pytestmark = LIGHTNING


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return synthetic_images.recipe(synthetic_images.image_folder(tmp_path_factory.mktemp("data") / "colours"), epochs=2)


@pytest.fixture(scope="module")
def whole(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("runs") / "whole")
    trainer.fit(recipe, run)
    return run


def _lines(run: Run) -> list[dict[str, str]]:
    with run.curves.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_each_epoch_is_a_line_with_what_the_tracker_was_told(whole: Run) -> None:
    lines = _lines(whole)
    assert [line["epoch"] for line in lines] == ["0", "1"]
    for name in curves.COLUMNS[2:]:
        expected = list(logged(whole.folder)[name].values())
        assert [float(line[name]) for line in lines] == pytest.approx(expected, rel=1e-6)


def test_in_a_log_there_is_a_line_per_epoch_and_no_progress_bar(
    recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO, logger="training"):
        trainer.fit(recipe, Run(tmp_path / "run"))
    lines = [line for line in caplog.messages if line.startswith("epoch ")]
    assert len(lines) == 2
    for epoch, line in enumerate(lines, 1):
        number = r"\d+\.\d{4}"
        figures = f"train/loss {number}, val/loss {number}, val/accuracy {number}"
        assert re.fullmatch(rf"epoch {epoch} of 2: {figures}, \d+ s", line)
    assert "it/s" not in "".join(capfd.readouterr())


def test_the_picture_is_drawn(whole: Run) -> None:
    with Image.open(whole.curves_plot) as image:
        assert np.asarray(image.convert("L")).std() > 10


def test_a_resumed_run_continues_its_curves_and_a_new_one_begins_again(
    recipe: Recipe, whole: Run, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run")
    trainer.fit(replace(recipe, epochs=1), run)
    first = _lines(run)
    trainer.fit(recipe, run, resume="auto")
    assert _lines(run)[0] == first[0]
    assert [line["epoch"] for line in _lines(run)] == ["0", "1"]

    trainer.fit(replace(recipe, epochs=1), run)
    assert [line["epoch"] for line in _lines(run)] == ["0"]
    assert len(_lines(whole)) == 2


def test_a_picture_that_cannot_be_drawn_ends_no_run(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no such font")

    monkeypatch.setattr(curves, "figure", broken)
    with caplog.at_level(logging.WARNING):
        trainer.fit(replace(recipe, epochs=1), run := Run(tmp_path / "run"))
    assert run.finished
    assert [r.message for r in caplog.records if "curves" in r.message] == [
        "the learning curves cannot be written (no such font): the training goes on"
    ]
    assert len(_lines(run)) == 1


def test_the_report_says_which_epoch_was_best_and_draws_it() -> None:
    rows = [
        {"epoch": 0.0, "val/accuracy": 0.5, "val/loss": 1.0, "train/loss": 2.0, "train/accuracy": 0.3},
        {"epoch": 1.0, "val/accuracy": 0.75, "val/loss": 0.9, "train/loss": 1.5, "train/accuracy": 0.6},
        {"epoch": 2.0, "val/accuracy": 0.75, "val/loss": 0.8, "train/loss": 1.4, "train/accuracy": 0.7},
    ]
    assert curves.best(rows)["epoch"] == 2
    drawn = curves.figure(rows, probe=0.6)
    assert drawn.get_suptitle() == "best epoch: 2, validation accuracy 75.0 %"
    assert [axes.get_ylabel() for axes in drawn.axes] == ["loss", "accuracy"]


def test_a_source_that_only_some_epochs_have_is_a_column(tmp_path: Path) -> None:
    rows = [{"epoch": 0.0, "val/accuracy": 0.5}, {"epoch": 1.0, "val/accuracy": 0.6, "val/accuracy_wild": 1 / 3}]
    curves.write(tmp_path / "curves.csv", rows)
    assert curves.read(tmp_path / "curves.csv") == rows
