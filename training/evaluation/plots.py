"""Plots of an evaluation: reliability diagram, confusion matrix, recall and precision of every label."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.evaluation.calibration import calibration_error, probabilities, reliability
from training.markdown import counted
from training.plotting import ACCENT, INK, PALE, WARN, plain

MOST_CONFUSED = 40  # labels in the confusion matrix: more cannot be read
LABELS_PER_COLUMN = 40
MOST_LABELS = 120


def reliability_diagram(logits: np.ndarray, targets: np.ndarray, temperature: float) -> Figure:
    """Return stated probability against accuracy of (N, C) logits and (N,) label indices, before and after."""
    figure = Figure(figsize=(9.5, 4.6), layout="constrained")
    before, after = figure.subplots(1, 2, sharey=True)
    for axes, title, scale in (
        (before, "before temperature", 1.0),
        (after, f"temperature {temperature:.2f}", temperature),
    ):
        _diagram(axes, probabilities(logits, scale), targets)
        error = 100 * calibration_error(probabilities(logits, scale), targets)
        axes.set_title(f"{title}: calibration error {error:.1f} %", color=INK, fontsize=11)
    before.set_ylabel("accuracy")
    figure.suptitle(f"Reliability of the probabilities ({len(targets)} images)", color=INK)
    return figure


def _diagram(axes: Axes, probability: np.ndarray, targets: np.ndarray) -> None:
    rows = reliability(probability, targets)
    width = 1 / len(rows)
    filled = rows[:, 0] > 0
    centres = (np.arange(len(rows)) + 0.5) * width
    axes.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle="--", zorder=3)
    axes.bar(centres[filled], rows[filled, 2], width * 0.92, color=PALE, edgecolor=ACCENT)
    axes.scatter(
        rows[filled, 1],
        rows[filled, 2],
        8 + 60 * np.sqrt(rows[filled, 0] / len(targets)),
        ACCENT,
        zorder=4,
        clip_on=False,
    )
    for index in np.flatnonzero(filled):
        axes.annotate(str(int(rows[index, 0])), (centres[index], 0.015), ha="center", fontsize=7, color=INK)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="stated probability (images per bin at the bottom)")
    plain(axes)


def confusion_matrix(counts: np.ndarray, labels: tuple[str, ...]) -> Figure:
    """Return the confusion matrix (C, C) of the labels with the most mistakes, a row per true label."""
    wrong = counts - np.diag(np.diag(counts))
    confused = _confused(wrong)
    part = counts[np.ix_(confused, confused)]
    share = part / np.maximum(counts[confused].sum(1, keepdims=True), 1)
    longest = max((len(labels[index]) for index in confused), default=0)
    side = 3.2 + 0.3 * len(confused) + 0.07 * max(0, longest - 20)  # names stand at two sides of the square
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(share, cmap="BuGn", vmin=0, vmax=1)
    for row, column in zip(*np.nonzero(part), strict=True):
        colour = "white" if share[row, column] > 0.6 else INK
        axes.text(column, row, str(part[row, column]), ha="center", va="center", fontsize=8, color=colour)
    names = [labels[index] for index in confused]
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8, parse_math=False)
    axes.set_yticks(range(len(names)), names, fontsize=8, parse_math=False)
    axes.set(xlabel="predicted", ylabel="true label")
    heading = "Labels with mistakes" if wrong.any() else "No mistakes"
    title = f"{heading}\n({int(wrong.sum())} of {int(counts.sum())} images wrong)"
    axes.set_title(title, color=INK)
    return figure


def _confused(wrong: np.ndarray) -> np.ndarray:
    """Return the label indices of the most frequent mistakes (C, C), both sides of each, ascending; else the first."""
    shown: set[int] = set() if wrong.any() else set(range(min(len(wrong), MOST_CONFUSED)))
    for flat in np.argsort(-wrong, axis=None, kind="stable")[: max(1, np.count_nonzero(wrong))]:
        pair = {int(index) for index in np.unravel_index(flat, wrong.shape)}
        if len(shown | pair) <= MOST_CONFUSED:
            shown |= pair
    return np.array(sorted(shown))


def label_bars(rows: Sequence[dict[str, Any]], labels: Sequence[str]) -> Figure:
    """Return recall and precision of every label with a mistake, or of all where there is none.

    ``rows`` are those of `metrics.per_label`.
    """
    shown = [(row["f1"], row["accuracy"], label, row) for label, row in zip(labels, rows, strict=True) if row["count"]]
    missed = sorted((entry for entry in shown if entry[0] < 1), key=lambda entry: entry[:3])
    drawn = (missed or sorted(shown, key=lambda entry: entry[2]))[:MOST_LABELS]
    columns = max(1, -(-len(drawn) // LABELS_PER_COLUMN))
    parts = np.array_split(np.arange(len(drawn)), columns)
    figure = Figure(figsize=(6.4 * columns, 1.9 + 0.26 * len(parts[0])), layout="constrained")
    for axes, part in zip(np.atleast_1d(figure.subplots(1, columns)), parts, strict=True):
        _bars(axes, [drawn[index][2:] for index in part])
    perfect = f"left out: {counted(len(shown) - len(missed), 'label')} of {len(shown)} without a mistake"
    title = f"Labels with mistakes, the lowest F1 first\n{perfect}" if missed else "No label has a mistake"
    hidden = len(missed or shown) - len(drawn)
    figure.suptitle(title + (f"; {hidden} more are not shown" if hidden else ""), color=INK, fontsize=11)
    return figure


def _bars(axes: Axes, entries: list[tuple[str, dict[str, Any]]]) -> None:
    for index, (_, row) in enumerate(entries):
        axes.barh(index, row["accuracy"], color=PALE, edgecolor=ACCENT, height=0.7)
        axes.plot(row["interval"], [index, index], color=INK, linewidth=1)
        if row["precision"] is not None:
            axes.plot(row["precision"], index, "D", color=WARN, markersize=5, clip_on=False, zorder=4)
    axes.set_yticks(
        range(len(entries)),
        [f"{name}  {row['right']}/{row['count']}" for name, row in entries],
        fontsize=8,
        parse_math=False,
    )
    axes.set(xlim=(0, 1), ylim=(max(len(entries), 1) - 0.4, -0.6))
    axes.set_xlabel("bar: recall, line: its 95 % interval, diamond: precision", fontsize=8, color=INK)
    plain(axes)
