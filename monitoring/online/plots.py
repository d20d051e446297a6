"""Plots of an online evaluation: a reliability diagram and the distribution of the latency."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from monitoring.online.metrics import Judged
from training.evaluation.calibration import by_confidence

_INK, _ACCENT, _PALE = "#263238", "#00796b", "#b2dfdb"
_DPI = 110
_DECADE = 10  # latencies that are closer together get a linear axis


def draw(folder: Path, judged: Judged, latencies_s: Sequence[float | None]) -> list[str]:
    """Write the plots that there are data for; return the files' names."""
    names = []
    if len(judged.right):
        names.append(_save(_reliability(judged), folder / "reliability.png"))
    latencies = np.array([seconds for seconds in latencies_s if seconds is not None])
    if len(latencies):
        names.append(_save(_latency(latencies), folder / "latency.png"))
    return names


def _reliability(judged: Judged) -> Figure:
    rows = by_confidence(judged.confidence, judged.right)
    width, filled = 1 / len(rows), rows[:, 0] > 0
    centres = (np.arange(len(rows)) + 0.5) * width
    figure = Figure(figsize=(5.2, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=_INK, linewidth=1, linestyle="--", zorder=3)
    axes.bar(centres[filled], rows[filled, 2], width * 0.92, color=_PALE, edgecolor=_ACCENT)
    axes.scatter(rows[filled, 1], rows[filled, 2], 18, _ACCENT, zorder=4)
    for index in np.flatnonzero(filled):
        axes.annotate(str(int(rows[index, 0])), (centres[index], 0.015), ha="center", fontsize=7, color=_INK)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="predicted probability (images per bin at the bottom)")
    axes.set_ylabel("share correct")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _latency(latencies_s: np.ndarray) -> Figure:
    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axes = figure.subplots()
    milliseconds = np.sort(1000 * latencies_s)
    axes.step(milliseconds, np.arange(1, len(milliseconds) + 1) / len(milliseconds), color=_ACCENT, where="post")
    axes.set(ylim=(0, 1.02), xlabel="milliseconds until the answer, at the client", ylabel="share answered")
    if milliseconds[-1] > _DECADE * milliseconds[0]:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(color=_PALE, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _save(figure: Figure, path: Path) -> str:
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=_DPI, metadata={"Software": None})
    return path.name
