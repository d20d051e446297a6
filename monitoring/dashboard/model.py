"""What a dashboard is made of: rows of panels, each a question with the queries that answer it; knows no Grafana.

Below them the few forms of PromQL that the panels use. SCOPE, MODEL and ANSWERED restrict a query to the dashboard's
variables: instances, the models among them, or what the gateway answered to predictions and explanations.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["timeseries", "stat", "table"]
# Colours from a value upwards; None is everything below the first.
Steps = tuple[tuple[float | None, str], ...]

SCOPE = 'namespace=~"$namespace",job=~"$job"'
MODEL = f'{SCOPE},model=~"$model"'
ANSWERED = f'{SCOPE},route=~"predictions|explanations"'
_WINDOW = "[$__rate_interval]"
PLAIN: Steps = ((None, "blue"),)


@dataclass(frozen=True)
class Query:
    """A PromQL expression and what its series are called, {{label}} standing for a label's value."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """A question and the queries that answer it; ``width`` in Grafana's columns, of which a row has 24."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: Kind = "timeseries"
    width: int = 8
    steps: Steps = PLAIN
    stacked: bool = False
    maximum: float | None = None


@dataclass(frozen=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


def bad_above(orange: float, red: float) -> Steps:
    """Colour what gets worse as it grows."""
    return ((None, "green"), (orange, "orange"), (red, "red"))


def bad_below(orange: float, green: float) -> Steps:
    """Colour what gets worse as it falls."""
    return ((None, "red"), (orange, "orange"), (green, "green"))


def rate(metric: str, selector: str, by: str) -> str:
    """Return a counter's growth per second, summed over all labels but ``by``."""
    return f"sum by ({by}) (rate({metric}{{{selector}}}{_WINDOW}))"


def mean(metric: str, selector: str, by: str) -> str:
    """Return the mean of a histogram's observations."""
    return f"{rate(metric + '_sum', selector, by)} / {rate(metric + '_count', selector, by)}"


def quantile(share: float, metric: str, selector: str) -> str:
    """Return a quantile of a histogram's observations; ``share`` is 0-1."""
    return f"histogram_quantile({share}, {rate(metric + '_bucket', selector, 'le')})"
