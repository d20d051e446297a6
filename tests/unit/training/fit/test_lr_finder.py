from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.training import synthetic_images
from training import recipe as recipes
from training.__main__ import main
from training.fit import lr_finder
from training.fit.lr_finder import RangeTest, range_test
from training.recipe import Optimizer
from visionserve.errors import BundleError

# Lightning's own: parts of torch that it still uses.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def falling(steepest: float) -> RangeTest:
    """A loss that falls like a step of the logarithm of the rate, then explodes."""
    rates = np.geomspace(1e-4, 10, 101)
    losses = 4 - 3 / (1 + np.exp(-4 * np.log(rates / steepest))) + np.where(rates > 5, rates, 0)
    return RangeTest(rates, losses, losses, diverged=True)


def test_the_suggestion_is_where_the_loss_falls_fastest_over_the_logarithm(tmp_path: Path) -> None:
    for steepest in (0.003, 0.3):
        test = falling(steepest)
        assert test.suggested is not None
        assert test.rates[test.suggested] == pytest.approx(steepest, rel=0.15)
        assert "falls fastest" in lr_finder.table(test)
    lr_finder.draw(test, 0.02, tmp_path / "lr.png")
    assert (tmp_path / "lr.png").read_bytes().startswith(b"\x89PNG")


def test_a_loss_that_only_rises_suggests_nothing() -> None:
    rates = np.geomspace(1e-4, 10, 50)
    assert RangeTest(rates, rates, rates, diverged=False).suggested is None


def test_the_test_ends_when_the_loss_runs_away_and_leaves_a_plot_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipes.save(synthetic_images.recipe(synthetic_images.image_folder(tmp_path / "colours")), tmp_path / "recipe.yaml")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    command = ["lr-find", "-c", "../recipe.yaml", "--cache", "../cache", "--steps", "40", "--lowest", "1e-4"]
    status = main([*command, "--highest", "1e6"])
    answer = capsys.readouterr()
    assert "the loss diverged at" in answer.out
    files = [
        path.relative_to(tmp_path / "here").as_posix() for path in (tmp_path / "here").rglob("*") if path.is_file()
    ]
    assert files == ["runs/colours/lr.png"]
    assert "plot: runs/colours/lr.png" in answer.out
    if status == 0:
        suggested = float(answer.out.split("--optimizer.learning_rate ")[1])
        assert 1e-4 <= suggested < 1e6
    else:
        assert "falls at none of the rates" in answer.err


def test_a_faster_head_stays_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[float]] = []

    def look(*hook: Any) -> None:
        seen.append({group["lr"] for group in hook[-1].param_groups})

    monkeypatch.setattr(lr_finder._Rising, "on_before_optimizer_step", look)
    recipe = synthetic_images.recipe(
        synthetic_images.image_folder(tmp_path / "colours", per_label=6),
        optimizer=Optimizer(head_factor=3.0, head_epochs=5),
    )
    test = range_test(recipe, tmp_path / "cache", 1e-4, 1e-3, 20)
    assert [sorted(rates) for rates in seen] == [pytest.approx([rate, 3 * rate]) for rate in test.rates]
    assert len(test.rates) == 20
    assert not test.diverged


@pytest.mark.parametrize(
    ("lowest", "highest", "steps", "complaint"),
    [(0.1, 0.01, 50, "--lowest"), (0, 1, 50, "--lowest"), (0.01, 1, 5, "at least 20 steps")],
)
def test_an_impossible_range_is_refused(
    lowest: float, highest: float, steps: int, complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match=complaint):
        range_test(synthetic_images.recipe(tmp_path), tmp_path, lowest, highest, steps)
