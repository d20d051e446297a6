"""A section of the report: the answer to one question about a model, as metrics, text and plots.

EvaluationData -> a function per question -> Section -> report.md, metrics.json, plots/, the card
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Plot:
    """A figure of a section, saved as plots/<name>.png; ``caption`` is one sentence of what it shows.

    ``photographs`` marks a figure that shows images of the data set, whose licence keeps it out of a bundle.
    """

    name: str
    figure: Figure
    caption: str
    photographs: bool = False


@dataclass(frozen=True)
class Section:
    """The answer to one question.

    Args:
        title: its heading, in sentence case.
        lines: its text in Markdown, without the heading; `markdown.table` writes tables. The plots follow it.
        figures: plain numbers, strings, lists and dicts for metrics.json; rounded, for they are compared and committed.
        key: where metrics.json keeps them; "" merges them into its top level.
        headline: the few entries that go into ``card.metrics`` too.
    """

    title: str
    lines: Sequence[str]
    figures: dict[str, Any] = field(default_factory=dict)
    key: str = ""
    plots: Sequence[Plot] = ()
    headline: dict[str, Any] = field(default_factory=dict)
