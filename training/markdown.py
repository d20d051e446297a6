"""Markdown for reports: tables, percentages and intervals, written the same way everywhere."""

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[object]], text_columns: int = 1) -> list[str]:
    """Return the lines of a table; the first ``text_columns`` are aligned left, the others right."""
    rule = ["---"] * text_columns + ["---:"] * (len(head) - text_columns)
    return [_row(head), f"|{'|'.join(rule)}|", *(_row(row) for row in rows)]


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share, 0-1, as a percentage; None, which was not measured, as a dash."""
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: 1 label, 2,000 labels."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def interval(bounds: Sequence[float], digits: int = 1) -> str:
    """Return two shares, 0-1, as a range of percent."""
    low, high = bounds
    return f"{100 * low:.{digits}f}-{100 * high:.{digits}f}"


def with_interval(share: float | None, bounds: Sequence[float] | None, digits: int = 1) -> str:
    """Return a share, 0-1, with its interval in brackets: 97.7 % (96.3-98.6)."""
    stated = percent(share, digits)
    return stated if share is None or bounds is None else f"{stated} ({interval(bounds)})"


def _row(cells: Sequence[object]) -> str:
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"
