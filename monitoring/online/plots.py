"""Plots of a live run: how far its probabilities can be trusted, and how long people waited."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from monitoring.online.metrics import Judged
from training.evaluation.calibration import by_confidence

_INK, _ACCENT, _PALE = "#263238", "#00796b", "#b2dfdb"
_DPI = 110


def draw(folder: Path, found: Judged, latencies_s: Sequence[float | None]) -> list[str]:
    """Write what can be drawn; return the files' names."""
    made = []
    if len(found.right):
        made.append(_save(_reliability(found), folder / "reliability.png"))
    waited = np.array([seconds for seconds in latencies_s if seconds is not None])
    if len(waited):
        made.append(_save(_latency(waited), folder / "latency.png"))
    return made


def _reliability(found: Judged) -> Figure:
    rows = by_confidence(found.confidence, found.right)
    width, filled = 1 / len(rows), rows[:, 0] > 0
    centres = (np.arange(len(rows)) + 0.5) * width
    figure = Figure(figsize=(5.2, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=_INK, linewidth=1, linestyle="--", zorder=3)
    axes.bar(centres[filled], rows[filled, 2], width * 0.92, color=_PALE, edgecolor=_ACCENT)
    axes.scatter(rows[filled, 1], rows[filled, 2], 18, _ACCENT, zorder=4)
    for place in np.flatnonzero(filled):
        axes.annotate(str(int(rows[place, 0])), (centres[place], 0.015), ha="center", fontsize=7, color=_INK)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="stated probability (photographs per bin at the foot)")
    axes.set_ylabel("share that was right")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _latency(waited_s: np.ndarray) -> Figure:
    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axes = figure.subplots()
    milliseconds = np.sort(1000 * waited_s)
    axes.step(milliseconds, np.arange(1, len(milliseconds) + 1) / len(milliseconds), color=_ACCENT, where="post")
    axes.set(ylim=(0, 1.02), xlabel="milliseconds until the answer, at the client", ylabel="share answered")
    axes.set_xscale("log")
    axes.grid(color=_PALE, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _save(figure: Figure, path: Path) -> str:
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=_DPI, metadata={"Software": None})
    return path.name
