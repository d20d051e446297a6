"""The report of a comparison: table, verdict on a release, differences by label, JSON and the plot."""

import json
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from training import plotting
from training.evaluation import intervals
from training.evaluation.compare import PRECISIONS, Images, Measured
from training.evaluation.intervals import few_images
from training.markdown import table, with_interval

MARGIN = 0.01  # of top-1: a new version may lose this much and still count as equal
_MARKS = dict(zip(PRECISIONS, "osD^", strict=True))
_COLOURS = (plotting.INK, plotting.ACCENT, plotting.WARN, "#5e35b1", "#1565c0", "#ad1457", "#6d4c41", "#9e9d24")
_COLUMNS = (
    "network",
    "precision",
    "input, crop",
    "validation top-1",
    "test top-1 (95 % interval)",
    "difference on test (95 % interval; lost, won)",
    "multiplications",
    "file",
    "images/s, median (range)",
    "times as fast",
)


def write(rows: Sequence[Measured], images: Images, folder: Path) -> str:
    """Write compare.md, compare.json and, where speed was measured, compare.png; return the Markdown."""
    groups = images.groups("test")
    text = "\n".join([*comparison_table(rows, groups), *_explanation(rows, images)]) + "\n"
    (folder / "compare.md").write_text(text, encoding="utf-8")
    (folder / "compare.json").write_text(json.dumps(plain(rows, groups), indent=1) + "\n", encoding="utf-8")
    if all(row.rates for row in rows):
        plotting.save(draw(rows, groups), folder / "compare.png")
    return text


def comparison_table(rows: Sequence[Measured], groups: Sequence[str] = ()) -> list[str]:
    """Return the comparison as a Markdown table; differences and ratios are to the first row.

    ``groups`` has what each test image comes from, if that is known; so in the other functions.
    """
    first = rows[0]
    cells = []
    for row in rows:
        candidate, right = row.candidate, row.right["test"]
        validation = row.right.get("val")
        cells.append(
            (
                candidate.name,
                candidate.precision,
                f"{candidate.card.input.size} px, {candidate.card.input.crop:g}",
                "" if validation is None else f"{100 * validation.mean():.2f} %",
                with_interval(float(right.mean()), intervals.share(right, groups), 2),
                _difference(first.right["test"], right, groups) if row is not first else "",
                f"{candidate.multiplications / 1e9:.2f} x 10^9",
                f"{candidate.file.stat().st_size / 1e6:.1f} MB",
                _range(row.rates, ".0f"),
                _range(ratios(row, first), ".2f"),
            )
        )
    return table(_COLUMNS, cells, text_columns=3)


def verdict(old: np.ndarray, new: np.ndarray, groups: Sequence[str] = (), margin: float = MARGIN) -> str:
    """Return a sentence on whether a new version may replace an old one: (N,) bool, right on the same images."""
    lost, won, low, high = paired(old, new, groups)
    stated = f"{100 * (won - lost) / len(old):+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"
    if low > 0:
        return f"Release: it is more accurate, by {stated}."
    if high < 0:
        return f"Do not release: it is less accurate, by {stated}."
    if low >= -margin:
        return f"Release is safe: the difference of {stated} excludes a loss of more than {100 * margin:g} point."
    return (
        f"Undecided: {stated}. These {len(old)} images cannot exclude a loss of more than {100 * margin:g} point; "
        "collect more test images, or release to a share of the traffic and measure there."
    )


def paired(before: np.ndarray, after: np.ndarray, groups: Sequence[str] = ()) -> tuple[int, int, float, float]:
    """Return how many of the same images (N,) were lost and won, and the 95 % interval of the change of the share."""
    lost, won = int((before & ~after).sum()), int((~before & after).sum())
    return lost, won, *intervals.paired(after, before, groups)


def ratios(row: Measured, first: Measured) -> tuple[float, ...]:
    """Return how many times as fast as the first row each round was."""
    return tuple(rate / base for rate, base in zip(row.rates, first.rates, strict=True))


def plain(rows: Sequence[Measured], groups: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return the numbers behind table and plot, for a JSON file."""
    return [
        {
            "network": row.candidate.name,
            "version": row.candidate.card.version,
            "precision": row.candidate.precision,
            "size": row.candidate.card.input.size,
            "crop": row.candidate.card.input.crop,
            "operations": row.candidate.multiplications,
            "bytes": row.candidate.file.stat().st_size,
            "images_per_second": [round(rate, 1) for rate in row.rates],
            **{split: {"right": int(right.sum()), "photographs": len(right)} for split, right in row.right.items()},
            "paired_test": paired(rows[0].right["test"], row.right["test"], groups),
            "verdict": verdict(rows[0].right["test"], row.right["test"], groups) if row is not rows[0] else None,
        }
        for row in rows
    ]


def draw(rows: Sequence[Measured], groups: Sequence[str] = ()) -> Figure:
    """Return test accuracy against images/s: a colour per network, a mark per precision.

    Bars are 95 % intervals of accuracy, and the slowest and the fastest round.
    """
    figure = Figure(figsize=(9.0, 5.2), layout="constrained")
    axes = figure.subplots()
    networks = list(dict.fromkeys(row.candidate.name for row in rows))
    colours = {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(networks)}
    for row in rows:
        _point(axes, row, colours[row.candidate.name], groups)
    precisions = [one for one in PRECISIONS if any(row.candidate.precision == one for row in rows)]
    axes.legend(
        handles=[
            *(Line2D([], [], color=colours[name], linewidth=3, label=name) for name in networks),
            *(Line2D([], [], color=plotting.INK, marker=_MARKS[one], linestyle="", label=one) for one in precisions),
        ],
        fontsize=8,
        frameon=False,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
    )
    axes.set_xlabel("images/s of the engine alone", fontsize=9, color=plotting.INK)
    axes.set_ylabel("test top-1 in %, with its 95 % interval", fontsize=9, color=plotting.INK)
    axes.set_title(f"Accuracy against speed ({len(rows[0].right['test'])} images)", fontsize=11, color=plotting.INK)
    axes.set_xlim(left=0)
    plotting.plain(axes)
    return figure


def _explanation(rows: Sequence[Measured], images: Images) -> list[str]:
    """Return which images these are, the verdict on every other bundle, and the labels that changed."""
    first = rows[0]
    warning = few_images(len(first.right["test"]))
    lines = ["", images.explanation] if images.explanation else []
    lines += [f"{count} test images {reason}: left out." for reason, count in (images.left_out or {}).items() if count]
    lines += ["", warning] if warning else []
    if groups := images.groups("test"):
        lines += [
            "",
            f"Intervals are those of other groups than these {len(set(groups))}: the images of one are alike.",
        ]
    for row in rows[1:]:
        if row.candidate.card == first.candidate.card or (not _alike(row, first) and _has_alike(row, rows)):
            continue
        sentence = verdict(first.right["test"], row.right["test"], images.groups("test"))
        new, old = (
            entry.candidate.name if _alike(row, first) else f"{entry.candidate.name} in {entry.candidate.precision}"
            for entry in (row, first)
        )
        lines += ["", f"**{new} instead of {old}:** {sentence}"]
        lines += _labels(first.right["test"], row.right["test"], [image.label for image in images.rows["test"]])
    return lines


def _alike(row: Measured, first: Measured) -> bool:
    return row.candidate.precision == first.candidate.precision


def _has_alike(row: Measured, rows: Sequence[Measured]) -> bool:
    """Whether a row's bundle is also measured in the first row's precision; as served it may have another."""
    return any(_alike(other, rows[0]) and other.candidate.card == row.candidate.card for other in rows[1:])


def _labels(before: np.ndarray, after: np.ndarray, labels: Sequence[str]) -> list[str]:
    """Return a table of the labels whose number of right predictions changed, the largest loss first."""
    count, old, new = Counter(labels), Counter[str](), Counter[str]()
    for label, was, now in zip(labels, before, after, strict=True):
        old[label] += int(was)
        new[label] += int(now)
    changed = sorted(
        (label for label in count if old[label] != new[label]), key=lambda label: (new[label] - old[label], label)
    )
    if not changed:
        return []
    rows = [(label, count[label], old[label], new[label], f"{new[label] - old[label]:+d}") for label in changed]
    return ["", *table(["label", "images", "right before", "right after", "change"], rows)]


def _point(axes: Axes, row: Measured, colour: str, groups: Sequence[str]) -> None:
    right = row.right["test"]
    share, (low, high) = 100 * right.mean(), intervals.share(right, groups)
    middle = statistics.median(row.rates)
    axes.errorbar(
        [middle],
        [share],
        xerr=[[middle - min(row.rates)], [max(row.rates) - middle]],
        yerr=[[share - 100 * low], [100 * high - share]],
        color=colour,
        marker=_MARKS[row.candidate.precision],
        markersize=7,
        linewidth=1,
        alpha=0.9,
    )


def _difference(before: np.ndarray, after: np.ndarray, groups: Sequence[str]) -> str:
    lost, won, low, high = paired(before, after, groups)
    return f"{100 * (won - lost) / len(before):+.2f} ({100 * low:+.2f} to {100 * high:+.2f}; -{lost} +{won})"


def _range(values: tuple[float, ...], form: str) -> str:
    if not values:
        return "not measured"
    return f"{statistics.median(values):{form}} ({min(values):{form}}-{max(values):{form}})"
