"""What is taken for what: the confusion matrix and the ten worst pairs, with photographs of both."""

from collections import defaultdict
from typing import Any

import numpy as np

from training.evaluation import metrics, plots
from training.evaluation.calibration import probabilities
from training.evaluation.evaluate import Evidence
from training.evaluation.report import sheets
from training.evaluation.report.sections import Plot, Section
from training.markdown import percent, table

WORST = 10


def section(evidence: Evidence) -> Section:
    """Return every confusion and the worst pairs; metrics.json has them as ``confusions`` and ``worst_pairs``."""
    counts = metrics.confusion(evidence.served.logits, evidence.targets)
    pairs = worst_pairs(evidence)
    figures = {"confusions": _confusions(evidence.card.labels, counts), "worst_pairs": pairs}
    if not pairs:
        return Section("Confusions", ["Every photograph was recognised."], figures)
    wrong = sum(row["count"] for row in figures["confusions"])
    lines = [
        f"{wrong} of {len(evidence.targets)} photographs were mistaken. The pairs with the most mistakes, among equals "
        "those that the model was surest about:",
        "",
        *table(
            ["photographs of", "taken for", "times", "probability given to the wrong label", "to the right one"],
            [
                (p["label"], p["predicted"], f"{p['times']} of {p['of']}", *(percent(p[n]) for n in ("wrong", "right")))
                for p in pairs
            ],
        ),
    ]
    matrix = Plot("confusion", plots.confusion_matrix(counts, evidence.card.labels), "The labels that were mistaken")
    caption = "A mistaken photograph of each pair, and beside it a photograph of what it was taken for"
    sheet = Plot("confused_pairs", sheets.pairs(evidence, pairs), caption, photographs=True)
    return Section("Confusions", lines, figures, plots=[matrix, sheet])


def worst_pairs(evidence: Evidence, count: int = WORST) -> list[dict[str, Any]]:
    """Return the most frequent mistakes: labels, how often, mean probabilities, and the files below the data root."""
    found = probabilities(evidence.served.logits, evidence.card.temperature)
    said = found.argmax(1)
    places: dict[tuple[int, int], list[int]] = defaultdict(list)
    for place in np.flatnonzero(said != evidence.targets):
        places[int(evidence.targets[place]), int(said[place])].append(int(place))
    shown = np.bincount(evidence.targets, minlength=found.shape[1])
    rows: list[dict[str, Any]] = [
        {
            "label": evidence.card.labels[truth],
            "predicted": evidence.card.labels[answer],
            "times": len(group),
            "of": int(shown[truth]),
            "wrong": metrics.rounded(found[group, answer].mean()),
            "right": metrics.rounded(found[group, truth].mean()),
            "files": [evidence.files[place].relative_to(evidence.manifest.root).as_posix() for place in group],
        }
        for (truth, answer), group in places.items()
    ]
    return sorted(rows, key=lambda row: (-row["times"], -row["wrong"], row["label"]))[:count]


def _confusions(labels: tuple[str, ...], counts: np.ndarray) -> list[dict[str, Any]]:
    """Return every mistake that was made: what it was, what was said, how often; the most frequent first."""
    places = [(int(t), int(p)) for t, p in zip(*np.nonzero(counts), strict=True) if t != p]
    places.sort(key=lambda place: (-counts[place], place))
    return [{"label": labels[t], "predicted": labels[p], "count": int(counts[t, p])} for t, p in places]
