"""Plot style: the colours that all plots share, axes without a frame, and PNG files with the same bytes every time."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Text and lines; what is shown; its area; what it is compared with, or what went wrong.
INK, ACCENT, PALE, WARN = "#263238", "#00796b", "#b2dfdb", "#c2571a"
DPI = 110


def plain(axes: Axes) -> None:
    """Take the frame off and make the ticks' numbers small."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def save(figure: Figure, path: Path) -> None:
    """Write a PNG file: the same bytes from the same figure."""
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
