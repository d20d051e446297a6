"""Plots: a run as one figure: latency against the rate (or over time), and below it where the time went."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from loadtests.results.run_record import RunRecord
from loadtests.results.summary import Point, Slo, highest_held, points

_LINES = (("p50_ms", "p50", "#3b7dd8"), ("p95_ms", "p95", "#e0912f"), ("p99_ms", "p99", "#c23b3b"))
# From the bottom: constant parts first, so that the growth of the queue shows.
_PARTS = {
    "inference": "#3b7dd8",
    "decode": "#57a773",
    "batch mates": "#a9cfa0",
    "queue and transport": "#a7abbb",
    "waiting to be sent": "#d5c7a4",
}
# More dots than this cannot be distinguished.
_MOST_DOTS = 150
_INK = "#333340"


def draw(record: RunRecord, path: Path) -> None:
    """Write the figure of a run as PNG."""
    matplotlib.use("Agg")
    stages = points(record)
    timed = any(point.parts_ms for point in stages)
    rows = 2 if timed else 1
    figure, axes = pyplot.subplots(
        rows,
        1,
        figsize=(9, 4.2 + 2.8 * (rows - 1)),
        squeeze=False,
        layout="constrained",
        gridspec_kw={"height_ratios": [3, 2][:rows]},
    )
    try:
        _latency(axes[0][0], record, stages)
        if timed:
            _breakdown(axes[1][0], record, stages)
        figure.savefig(path, dpi=130)
    finally:
        pyplot.close(figure)


def _latency(axes: Axes, record: RunRecord, stages: Sequence[Point]) -> None:
    if record.shape == "steps" and len(stages) > 1:
        _against_level(axes, record, stages)
    else:
        _over_time(axes, record)
    _target(axes, record.targets["p99_ms"])
    axes.set_ylabel("latency, ms" + (" (from when it was due)" if record.loop == "open" else ""))
    axes.legend(loc="upper left", frameon=False, ncols=4)
    _tidy(axes)


def _target(axes: Axes, limit_ms: float) -> None:
    """Draw the target unless it is far above the curves, which it would flatten."""
    low, high = axes.get_ylim()
    if limit_ms > 2 * high:
        axes.set_title(f"target for p99: {limit_ms:g} ms, far above", loc="right", fontsize=10, color=_INK)
        return
    axes.set_ylim(low, max(high, limit_ms * 1.1))
    axes.axhline(limit_ms, color=_INK, linestyle="--", linewidth=1)
    axes.annotate(
        f"target for p99: {limit_ms:g} ms",
        (0.005, limit_ms),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        fontsize=8,
        color=_INK,
    )


def _against_level(axes: Axes, record: RunRecord, stages: Sequence[Point]) -> None:
    levels = [point.stage.level for point in stages]
    for name, label, colour in _LINES:
        axes.plot(levels, [getattr(point, name) for point in stages], "o-", color=colour, label=label, markersize=4)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * 1.6)  # room for the legend
    axes.set_xlabel(_unit(record))
    highest = highest_held(stages, Slo(**record.targets))
    if highest is not None:
        axes.axvspan(highest.stage.level, levels[-1], color="#c23b3b", alpha=0.06, linewidth=0)
        text = f"targets met up to {highest.stage.level:g}{'/s' if record.loop == 'open' else ' users'}"
        axes.set_title(text, loc="right", fontsize=10, color=_INK)
    axes.set_title(f"Latency against {'rate' if record.loop == 'open' else 'users'}", loc="left", fontweight="bold")


def _over_time(axes: Axes, record: RunRecord) -> None:
    """Draw percentiles over the seconds of the run, and the stages' levels behind them."""
    start_s = record.starts_s[0] if record.starts_s else 0.0
    last_s = max(record.stats.seconds, default=0) + 1
    width = max(1, math.ceil((last_s - start_s) / _MOST_DOTS))
    edges = list(range(int(start_s), last_s, width))
    intervals = [record.stats.between(edge, edge + width) for edge in edges]
    for (_, label, colour), share in zip(_LINES, (0.5, 0.95, 0.99), strict=True):
        heights = [interval.latency.percentile(share) for interval in intervals]
        axes.plot([edge - start_s for edge in edges], heights, ".-", color=colour, label=label, linewidth=1.2)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.2)  # room for the legend
    axes.set_xlabel("seconds")
    axes.set_title("Latency over time", loc="left", fontweight="bold")
    _levels(axes, record, start_s)


def _levels(axes: Axes, record: RunRecord, start_s: float) -> None:
    stages = list(zip(record.stages, record.starts_s, strict=False))
    if len({stage.level for stage, _ in stages}) < 2:
        return
    behind = axes.twinx()
    edges = [begin - start_s for _, begin in stages] + [stages[-1][1] + stages[-1][0].seconds - start_s]
    behind.stairs([stage.level for stage, _ in stages], edges, color="#8d93a8", alpha=0.18, fill=True)
    behind.set_ylim(0, max(stage.level for stage, _ in stages) * 1.6)
    behind.set_ylabel(_unit(record) + " (grey)", color="#8d93a8")
    _tidy(behind)
    behind.grid(visible=False)


def _breakdown(axes: Axes, record: RunRecord, stages: Sequence[Point]) -> None:
    """Draw the mean answer of each stage as a bar of its parts."""
    labels = [_bar_label(record, point) for point in stages]
    positions = list(range(len(stages)))
    bottoms = [0.0] * len(stages)
    for name, colour in _PARTS.items():
        heights = [point.parts_ms.get(name, 0.0) for point in stages]
        if max(heights) >= 0.01:
            axes.bar(positions, heights, 0.62, bottoms, color=colour, label=name)
        bottoms = [below + height for below, height in zip(bottoms, heights, strict=True)]
    axes.set_xticks(positions, labels, fontsize=8, rotation=0 if len(labels) < 16 else 60)
    axes.set_xlim(-0.6, max(len(stages), 4) - 0.4)
    _cut(axes, bottoms)
    axes.set_ylabel("mean, ms")
    axes.set_title("Where the time goes", loc="left", fontweight="bold")
    axes.legend(loc="upper left", frameon=False, fontsize=8, ncols=5)
    _tidy(axes)


def _cut(axes: Axes, heights: list[float]) -> None:
    """Leave room for the legend; cut the bar of a stage that overloaded the service, which would flatten all others."""
    usual = sorted(heights)[-2] if len(heights) > 2 else max(heights)
    top = min(max(heights), 2 * usual) * 1.25 or 1.0
    axes.set_ylim(0, top)
    for i, height in enumerate(heights):
        if height > top:
            axes.annotate(f"{height:.0f} ms", (i, 0.8 * top), ha="center", fontsize=8, color=_INK)


def _bar_label(record: RunRecord, point: Point) -> str:
    return f"{point.stage.level:g}" if record.shape == "steps" else f"{point.stage.name}\n{point.stage.level:g}"


def _unit(record: RunRecord) -> str:
    return "arrivals per second" if record.loop == "open" else "users"


def _tidy(axes: Any) -> None:
    axes.grid(visible=True, alpha=0.25)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
