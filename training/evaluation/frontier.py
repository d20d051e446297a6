"""The plot of a comparison: test accuracy against images/s, one colour per network, one mark per precision."""

import statistics
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from training import plotting
from training.evaluation import metrics
from training.evaluation.compare import Row
from training.evaluation.contenders import PRECISIONS

_MARKS = dict(zip(PRECISIONS, "osD^", strict=True))
_COLOURS = (plotting.INK, plotting.ACCENT, plotting.WARN, "#5e35b1", "#1565c0", "#ad1457", "#6d4c41", "#9e9d24")


def draw(rows: Sequence[Row]) -> Figure:
    """Return the figure; bars are 95 % intervals of accuracy, and the slowest and the fastest round."""
    figure = Figure(figsize=(9.0, 5.2), layout="constrained")
    axes = figure.subplots()
    names = list(dict.fromkeys(row.contender.name for row in rows))
    colours = {name: _COLOURS[place % len(_COLOURS)] for place, name in enumerate(names)}
    for row in rows:
        _point(axes, row, colours[row.contender.name])
    precisions = [one for one in PRECISIONS if any(row.contender.precision == one for row in rows)]
    axes.legend(
        handles=[
            *(Line2D([], [], color=colours[name], linewidth=3, label=name) for name in names),
            *(Line2D([], [], color=plotting.INK, marker=_MARKS[one], linestyle="", label=one) for one in precisions),
        ],
        fontsize=8,
        frameon=False,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
    )
    axes.set_xlabel("images/s of the engine alone", fontsize=9, color=plotting.INK)
    axes.set_ylabel("test top-1 in %, with its 95 % interval", fontsize=9, color=plotting.INK)
    axes.set_title(
        f"Accuracy against speed ({len(rows[0].right['test'])} photographs)", fontsize=11, color=plotting.INK
    )
    axes.set_xlim(left=0)
    plotting.plain(axes)
    return figure


def _point(axes: Axes, row: Row, colour: str) -> None:
    right = row.right["test"]
    share, (low, high) = 100 * right.mean(), metrics.wilson(int(right.sum()), len(right))
    middle = statistics.median(row.rates)
    axes.errorbar(
        [middle],
        [share],
        xerr=[[middle - min(row.rates)], [max(row.rates) - middle]],
        yerr=[[share - 100 * low], [100 * high - share]],
        color=colour,
        marker=_MARKS[row.contender.precision],
        markersize=7,
        linewidth=1,
        alpha=0.9,
    )
