"""A section of the report: what one question about a model found, as figures, as text and as plots.

Evidence (evaluation.evaluate) -> a function per question -> Section -> report.md, metrics.json, plots/, the card
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Plot:
    """A picture of a section, saved as plots/<name>.png; ``caption`` is one sentence of what it shows.

    ``photographs`` marks a picture that shows photographs of the data set. Their licence keeps it out of a bundle.
    """

    name: str
    figure: Figure
    caption: str
    photographs: bool = False


@dataclass(frozen=True)
class Section:
    """What one question found.

    Args:
        title: its heading, in sentence case.
        lines: its text in Markdown, without the heading; `table` writes tables. The plots follow it.
        figures: plain numbers, texts, lists and dicts for metrics.json; rounded, for they are compared and committed.
        key: where metrics.json keeps them; "" merges them into its top level.
        headline: the few entries that go into ``card.metrics`` too.
    """

    title: str
    lines: Sequence[str]
    figures: dict[str, Any] = field(default_factory=dict)
    key: str = ""
    plots: Sequence[Plot] = ()
    headline: dict[str, Any] = field(default_factory=dict)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Return a Markdown table; the first column is text, the others stand to the right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return [_row(head), f"|{'|'.join(rule)}|", *(_row(row) for row in rows)]


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share, 0-1, as a percentage; None, which nothing was measured for, as a dash."""
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def interval(bounds: Sequence[float], digits: int = 1) -> str:
    """Return two shares, 0-1, as a range of percent."""
    low, high = bounds
    return f"{100 * low:.{digits}f}-{100 * high:.{digits}f}"


def _row(cells: Sequence[object]) -> str:
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"
