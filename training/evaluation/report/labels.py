"""Every label by itself, and which labels are predicted instead of which."""

from collections import defaultdict
from typing import Any

import numpy as np

from training.evaluation import metrics, plots
from training.evaluation.calibration import probabilities
from training.evaluation.evaluate import EvaluationData
from training.evaluation.report import sheets
from training.evaluation.report.sections import Plot, Section
from training.markdown import counted, percent, table

_LOWEST = 20  # labels shown at once; the whole table unfolds
_PAIRS = 10


def labels(data: EvaluationData) -> Section:
    """Return the metrics of every label, in the card's order; metrics.json has them as ``labels``."""
    measured = metrics.per_label(data.predictions.logits, data.targets, data.groups)
    rows = [{"label": label} | row for label, row in zip(data.card.labels, measured, strict=True)]
    shown = [row for row in rows if row["count"]]
    perfect = sum(row["f1"] == 1 for row in shown)
    figure = plots.label_bars(measured, data.card.labels)
    caption = f"Recall with its 95 % interval and precision; {counted(perfect, 'label')} without a mistake left out"
    return Section(
        "Labels", _label_lines(rows, shown, perfect), {"labels": rows}, plots=[Plot("labels", figure, caption)]
    )


def confusions(data: EvaluationData) -> Section:
    """Return every confusion and the worst pairs; metrics.json has them as ``confusions`` and ``worst_pairs``."""
    counts = metrics.confusion(data.predictions.logits, data.targets)
    pairs = worst_pairs(data)
    figures = {"confusions": _confusions(data.card.labels, counts), "worst_pairs": pairs}
    matrix = Plot("confusion", plots.confusion_matrix(counts, data.card.labels), "The confusion matrix")
    if not pairs:
        return Section("Confusions", ["No image was misclassified."], figures, plots=[matrix])
    wrong = sum(row["count"] for row in figures["confusions"])
    lines = [
        f"{wrong} of {len(data.targets)} images were misclassified. The pairs with the most mistakes, among equals "
        "those with the highest probability of the wrong label:",
        "",
        *table(
            ["label", "predicted", "times", "probability of the predicted label", "of the right one"],
            [
                (p["label"], p["predicted"], f"{p['times']} of {p['of']}", *(percent(p[n]) for n in ("wrong", "right")))
                for p in pairs
            ],
        ),
    ]
    caption = "A misclassified image of each pair, and beside it an image of the predicted label"
    sheet = Plot("confused_pairs", sheets.pairs(data, pairs), caption, photographs=True)
    return Section("Confusions", lines, figures, plots=[matrix, sheet])


def worst_pairs(data: EvaluationData, count: int = _PAIRS) -> list[dict[str, Any]]:
    """Return the most frequent mistakes: labels, how often, mean probabilities, and the files below the data root."""
    probability = probabilities(data.predictions.logits, data.card.temperature)
    predicted = probability.argmax(1)
    mistakes: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index in np.flatnonzero(predicted != data.targets):
        mistakes[int(data.targets[index]), int(predicted[index])].append(int(index))
    shown = np.bincount(data.targets, minlength=probability.shape[1])
    rows: list[dict[str, Any]] = [
        {
            "label": data.card.labels[truth],
            "predicted": data.card.labels[wrong],
            "times": len(group),
            "of": int(shown[truth]),
            "wrong": metrics.rounded(probability[group, wrong].mean()),
            "right": metrics.rounded(probability[group, truth].mean()),
            "files": [data.files[index].relative_to(data.manifest.root).as_posix() for index in group],
        }
        for (truth, wrong), group in mistakes.items()
    ]
    return sorted(rows, key=lambda row: (-row["times"], -row["wrong"], row["label"]))[:count]


def _label_lines(rows: list[dict[str, Any]], shown: list[dict[str, Any]], perfect: int) -> list[str]:
    ordered = sorted(shown, key=lambda row: (row["f1"], row["accuracy"], row["label"]))
    counts = sorted(row["count"] for row in shown)
    lines = [
        f"Labels without a mistake: {perfect} of {len(shown)}. A label has {counts[0]} to {counts[-1]} images "
        f"here, median {counts[len(counts) // 2]}: where they are few, one mistake changes its metrics a lot.",
        "",
    ]
    if len(shown) < len(rows):
        lines += [f"Labels of the card without images in this split: {len(rows) - len(shown)}.", ""]
    if len(ordered) <= _LOWEST:
        return [*lines, *_label_table(ordered)]
    lines += [f"The {_LOWEST} with the lowest F1:", "", *_label_table(ordered[:_LOWEST]), ""]
    return [
        *lines,
        f"<details><summary>all {len(shown)} labels</summary>",
        "",
        *_label_table(ordered),
        "",
        "</details>",
    ]


def _label_table(rows: list[dict[str, Any]]) -> list[str]:
    return table(
        ["label", "images", "predicted", "right", "precision", "recall", "F1"],
        [
            (
                row["label"],
                *(row[name] for name in ("count", "predicted", "right")),
                *(percent(row[name]) for name in ("precision", "accuracy", "f1")),
            )
            for row in rows
        ],
    )


def _confusions(labels: tuple[str, ...], counts: np.ndarray) -> list[dict[str, Any]]:
    """Return every mistake: label, predicted label, how often; the most frequent first."""
    cells = [(int(t), int(p)) for t, p in zip(*np.nonzero(counts), strict=True) if t != p]
    cells.sort(key=lambda cell: (-counts[cell], cell))
    return [{"label": labels[t], "predicted": labels[p], "count": int(counts[t, p])} for t, p in cells]
