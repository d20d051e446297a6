"""The plots of a description as PNG files: images per label, their sizes and shapes, how alike they are."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from training.data.describe.scan import Measured
from training.data.duplicates import WORDS
from training.plotting import ACCENT, INK, PALE, plain, save

PER_COLUMN = 40  # labels: more cannot be read
MOST_LINEAR = 50  # images in a bar: beyond it small bars cannot be seen beside large ones
_SHAPES = {"1:2": 1 / 2, "2:3": 2 / 3, "3:4": 3 / 4, "1:1": 1.0, "4:3": 4 / 3, "3:2": 3 / 2, "2:1": 2.0}


def labels(counts: Mapping[str, int], path: Path) -> None:
    """Write a bar per label, the most frequent first."""
    entries = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    columns = -(-len(entries) // PER_COLUMN)
    parts = np.array_split(np.arange(len(entries)), columns)
    figure = Figure(figsize=(max(6.4, 3.6 * columns), 1.2 + 0.22 * len(parts[0])), layout="constrained")
    for axes, part in zip(np.atleast_1d(figure.subplots(1, columns, sharex=True)), parts, strict=True):
        shown = [entries[index] for index in part]
        axes.barh(range(len(shown)), [count for _, count in shown], color=PALE, edgecolor=ACCENT, height=0.7)
        for index, (_, count) in enumerate(shown):
            axes.annotate(f" {count}", (count, index), va="center", fontsize=7, color=INK)
        axes.set_yticks(range(len(shown)), [name for name, _ in shown], fontsize=8, parse_math=False)
        axes.set(xlim=(0, 1.12 * entries[0][1]), ylim=(max(len(parts[0]), 1) - 0.4, -0.6))
        plain(axes)
    figure.suptitle(f"Images of each of {len(entries)} labels", color=INK)
    save(figure, path)


def sizes(images: Sequence[Measured], path: Path) -> None:
    """Write widths against heights, the shorter sides and the shapes."""
    width, height = (np.array([getattr(m, name) for m in images], float) for name in ("width", "height"))
    figure = Figure(figsize=(12.5, 4.4), layout="constrained")
    scatter, side, shape = figure.subplots(1, 3)
    scatter.scatter(width, height, 12, ACCENT, alpha=min(1.0, max(0.06, 60 / len(width))), linewidths=0)
    top = 1.05 * max(width.max(), height.max())
    scatter.plot([0, top], [0, top], color=INK, linewidth=1, linestyle="--")
    scatter.set(xlim=(0, top), ylim=(0, top), aspect="equal", xlabel="width, pixels", ylabel="height, pixels")
    _histogram(side, np.minimum(width, height), "shorter side, pixels")
    ratio = np.log2(width / height)
    reach = max(1.05, float(np.abs(ratio).max()))
    _histogram(shape, ratio, "width to height", (-reach, reach))
    shape.set_xticks([float(np.log2(value)) for value in _SHAPES.values()], list(_SHAPES), fontsize=8)
    for axes, title in ((scatter, "Sizes, upright"), (side, "Shorter sides"), (shape, "Shapes")):
        axes.set_title(title, color=INK, fontsize=11)
        plain(axes)
    save(figure, path)


def alike(nearest: np.ndarray, distance: int, path: Path) -> None:
    """Write how many bits of its hash part each image from the one most like it; (N,) distances."""
    figure = Figure(figsize=(9.5, 3.8), layout="constrained")
    axes = figure.subplots()
    counts, _, _ = axes.hist(nearest, range(0, 64 * WORDS // 2 + 4, 2), color=PALE, edgecolor=ACCENT)
    axes.axvline(distance, color=INK, linewidth=1, linestyle="--")
    _count_ticks(axes, int(np.max(counts)))
    axes.annotate(
        "duplicates ", (distance, 0.94), xycoords=("data", "axes fraction"), ha="right", color=INK, fontsize=9
    )
    axes.set(xlim=(0, 64 * WORDS // 2), xlabel="bits of 256 that differ from the image most like it")
    axes.set_ylabel("images")
    axes.set_title("How alike the most alike images are", color=INK, fontsize=11)
    plain(axes)
    save(figure, path)


def _histogram(axes: Axes, values: np.ndarray, label: str, span: tuple[float, float] | None = None) -> None:
    if span is None:
        middle, spread = float(np.median(values)), float(np.ptp(values))
        span = (values.min(), values.max()) if spread > 0.1 * middle else (0.9 * middle, 1.1 * middle)
    bins = int(np.clip(round(3 * len(values) ** (1 / 3)), 5, 40))  # of few images many bins are slivers
    axes.hist(values, bins, range=span, color=PALE, edgecolor=ACCENT)
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set(xlabel=label, ylabel="images")


def _count_ticks(axes: Axes, most: int) -> None:
    """Give the y axis whole numbers: on a line up to 50 images, beyond that on a logarithmic one that has a zero."""
    if most <= MOST_LINEAR:
        axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        return
    axes.set_yscale("symlog", linthresh=10)
    ticks = [0, 5, *(step * 10**power for power in range(1, 8) for step in (1, 2, 5) if step * 10**power <= 1.5 * most)]
    axes.set_yticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set_yticks([], minor=True)
