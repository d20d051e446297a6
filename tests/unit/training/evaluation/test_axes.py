"""What stands at the axes of plots: whole counts, plain numbers, texts that do not lie on each other."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from monitoring.online.plots import _latency
from training.data.describe import plots
from training.evaluation import selective
from training.evaluation.report.risk_coverage import _draw


def drawn(figure: Figure) -> Figure:
    FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
    return figure


@pytest.mark.parametrize("count", [30, 2000])
def test_the_thresholds_of_a_coverage_plot_can_be_read(count: int) -> None:
    rng = np.random.default_rng(count)
    confidence = np.clip(rng.beta(8, 0.5, count), 0, 1)
    right = rng.random(count) < 0.8 + 0.2 * confidence
    rows = [
        {"coverage": coverage} | selective.at(selective.threshold_for(coverage, confidence), confidence, right)
        for coverage in (*selective.COVERAGES, 1.0)
    ]
    figure = drawn(_draw(confidence, right, rows))
    texts = [Text.get_window_extent(text) for text in figure.axes[0].texts]  # without the lines to the points
    assert len(texts) == len(selective.COVERAGES)
    assert not any(one.overlaps(other) for index, one in enumerate(texts) for other in texts[index + 1 :])
    assert all(text.x1 <= figure.bbox.x1 for text in texts)


@pytest.mark.parametrize("count", [3, 30, 2000])
def test_the_plots_of_a_description_count_whole_images(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(plots, "save", lambda figure, _: figures.append(drawn(figure)))
    rng = np.random.default_rng(count)
    images: Any = [SimpleNamespace(width=w, height=h) for w, h in rng.integers(200, 500, (count, 2)).tolist()]
    plots.sizes(images, tmp_path / "sizes.png")
    plots.alike(rng.integers(90, 110, count), 24, tmp_path / "alike.png")
    counted = [axes for figure in figures for axes in figure.axes if axes.get_ylabel() == "images"]
    assert len(counted) == 3
    for axes in counted:
        ticks = [label.get_text() for label in axes.get_yticklabels()]
        assert len(ticks) >= 2
        assert all(text.replace(",", "").isdigit() for text in ticks), ticks
        assert not axes.get_yticklabels(minor=True)


@pytest.mark.parametrize(("slowest", "scale"), [(0.03, "linear"), (2.0, "log")])
def test_the_latencies_have_several_plain_numbers(slowest: float, scale: str) -> None:
    axes = drawn(_latency(np.linspace(0.014, slowest, 30))).axes[0]
    low, high = axes.get_xlim()
    ticks = [
        label.get_text()
        for at, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
        if low <= at <= high
    ]
    assert axes.get_xscale() == scale
    assert len(ticks) >= 4
    assert all(text.replace(",", "").isdigit() for text in ticks), ticks
    assert not any(label.get_text() for label in axes.get_xticklabels(minor=True))
