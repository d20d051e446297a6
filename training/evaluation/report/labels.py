"""Every label by itself: how many photographs, and how precisely and how completely it is recognised."""

from typing import Any

from training.evaluation import metrics, plots
from training.evaluation.evaluate import Evidence
from training.evaluation.report.sections import Plot, Section
from training.markdown import percent, table

_WORST = 20  # shown at once; the whole table unfolds


def section(evidence: Evidence) -> Section:
    """Return the figures of every label, in the card's order; metrics.json has them as ``labels``."""
    found = metrics.per_label(evidence.served.logits, evidence.targets)
    rows = [{"label": label} | row for label, row in zip(evidence.card.labels, found, strict=True)]
    shown = [row for row in rows if row["count"]]
    perfect = sum(row["f1"] == 1 for row in shown)
    figure = plots.label_bars(found, evidence.card.labels)
    caption = f"Recall with its 95 % interval and precision; {perfect} labels without a mistake are left out"
    return Section("Labels", _lines(rows, shown, perfect), {"labels": rows}, plots=[Plot("labels", figure, caption)])


def _lines(rows: list[dict[str, Any]], shown: list[dict[str, Any]], perfect: int) -> list[str]:
    ordered = sorted(shown, key=lambda row: (row["f1"], row["accuracy"], row["label"]))
    counts = sorted(row["count"] for row in shown)
    lines = [
        f"{perfect} of {len(shown)} labels are without a mistake. A label has {counts[0]} to {counts[-1]} photographs "
        f"here, median {counts[len(counts) // 2]}: where they are few, one mistake moves its figures far.",
        "",
    ]
    if len(shown) < len(rows):
        lines += [f"{len(rows) - len(shown)} labels of the card have no photographs in this split.", ""]
    if len(ordered) <= _WORST:
        return [*lines, *_table(ordered)]
    lines += [f"The {_WORST} with the lowest F1:", "", *_table(ordered[:_WORST]), ""]
    return [*lines, f"<details><summary>all {len(shown)} labels</summary>", "", *_table(ordered), "", "</details>"]


def _table(rows: list[dict[str, Any]]) -> list[str]:
    head = ["label", "photographs", "said", "right", "precision", "recall", "F1"]
    return table(
        head,
        [
            (
                row["label"],
                *(row[name] for name in ("count", "predicted", "right")),
                *(percent(row[name]) for name in ("precision", "accuracy", "f1")),
            )
            for row in rows
        ],
    )
