"""Plots of an evaluation as PNG files: reliability, the confused labels, the accuracy of every label."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from training import metrics
from training.calibrate import calibration_error, probabilities, reliability

_INK, _ACCENT, _PALE = "#263238", "#00796b", "#b2dfdb"
MOST_CONFUSED = 24  # labels in the confusion plot: more cannot be read
DPI = 110


def draw(folder: Path, logits: np.ndarray, targets: np.ndarray, labels: tuple[str, ...], temperature: float) -> None:
    """Write reliability.png, confusion.png and labels.png of (N, C) logits against (N,) label indices."""
    folder.mkdir(parents=True, exist_ok=True)
    _save(_reliability(logits, targets, temperature), folder / "reliability.png")
    _save(_confusion(metrics.confusion(logits, targets), labels), folder / "confusion.png")
    _save(_labels(logits, targets, labels), folder / "labels.png")


def _reliability(logits: np.ndarray, targets: np.ndarray, temperature: float) -> Figure:
    figure = Figure(figsize=(9.5, 4.6), layout="constrained")
    before, after = figure.subplots(1, 2, sharey=True)
    for axes, title, scale in (
        (before, "before temperature", 1.0),
        (after, f"temperature {temperature:.2f}", temperature),
    ):
        _diagram(axes, probabilities(logits, scale), targets)
        axes.set_title(title, color=_INK)
    before.set_ylabel("share that was right")
    figure.suptitle(f"How far a probability can be trusted ({len(targets)} photographs never seen)", color=_INK)
    return figure


def _diagram(axes: Axes, found: np.ndarray, targets: np.ndarray) -> None:
    rows = reliability(found, targets)
    width = 1 / len(rows)
    filled = rows[:, 0] > 0
    centres = (np.arange(len(rows)) + 0.5) * width
    axes.plot([0, 1], [0, 1], color=_INK, linewidth=1, linestyle="--", zorder=3)
    axes.bar(centres[filled], rows[filled, 2], width * 0.92, color=_PALE, edgecolor=_ACCENT)
    axes.scatter(rows[filled, 1], rows[filled, 2], 8 + 60 * np.sqrt(rows[filled, 0] / len(targets)), _ACCENT, zorder=4)
    for place in np.flatnonzero(filled):
        axes.annotate(str(int(rows[place, 0])), (centres[place], 0.015), ha="center", fontsize=7, color=_INK)
    error = 100 * calibration_error(found, targets)
    axes.text(0.04, 0.94, f"calibration error {error:.1f} %", transform=axes.transAxes, color=_INK, va="top")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="stated probability (photographs per bin at the foot)")
    _plain(axes)


def _confusion(counts: np.ndarray, labels: tuple[str, ...]) -> Figure:
    wrong = counts - np.diag(np.diag(counts))
    trouble = wrong.sum(0) + wrong.sum(1)
    chosen = np.sort(np.argsort(-trouble, kind="stable")[: min(MOST_CONFUSED, int((trouble > 0).sum()) or 2)])
    part = counts[np.ix_(chosen, chosen)]
    share = part / np.maximum(counts[chosen].sum(1, keepdims=True), 1)
    side = 3.2 + 0.3 * len(chosen)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(share, cmap="BuGn", vmin=0, vmax=1)
    for row, column in zip(*np.nonzero(part), strict=True):
        colour = "white" if share[row, column] > 0.6 else _INK
        axes.text(column, row, str(part[row, column]), ha="center", va="center", fontsize=8, color=colour)
    names = [labels[index] for index in chosen]
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set(xlabel="predicted", ylabel="true label")
    axes.set_title(
        f"The {len(names)} labels with the most mistakes ({int(wrong.sum())} of {int(counts.sum())} wrong)", color=_INK
    )
    return figure


def _labels(logits: np.ndarray, targets: np.ndarray, labels: tuple[str, ...]) -> Figure:
    rows = metrics.per_label(logits, targets)
    shown = [index for index, row in enumerate(rows) if row["count"]]
    order = sorted(shown, key=lambda index: (rows[index]["accuracy"], -rows[index]["count"], labels[index]))
    columns = 1 if len(order) <= 40 else 3
    parts = np.array_split(np.array(order), columns)
    figure = Figure(figsize=(5.2 * columns, 1.4 + 0.21 * len(parts[0])), layout="constrained")
    for axes, part in zip(np.atleast_1d(figure.subplots(1, columns)), parts, strict=True):
        _bars(axes, [(f"{labels[i]} ({rows[i]['count']})", rows[i]["accuracy"]) for i in part])
    figure.suptitle("Share of each label's photographs that was recognised (number of photographs)", color=_INK)
    return figure


def _bars(axes: Axes, entries: list[tuple[str, float]]) -> None:
    places = range(len(entries))
    values = [value for _, value in entries]
    axes.barh(places, values, color=[_ACCENT if value == 1 else "#ef6c00" for value in values], height=0.7)
    axes.set_yticks(places, [name for name, _ in entries], fontsize=8)
    axes.set(xlim=(0, 1), ylim=(len(entries) - 0.4, -0.6))
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
