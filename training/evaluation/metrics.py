"""Metrics of logits: accuracy, calibration, and precision and recall of every label."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

from training.evaluation import intervals
from training.evaluation.calibration import (
    brier,
    calibration_error,
    debiased_error,
    equal_mass_error,
    negative_log_likelihood,
    probabilities,
    reliability,
)
from training.evaluation.intervals import wilson


def summarise(
    logits: np.ndarray, targets: np.ndarray, temperature: float, groups: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the metrics of (N, C) logits against (N,) label indices; shares are 0-1, intervals 95 %.

    ``groups`` has what each image comes from, such as its website, if that is known.

    ``reliability`` has a row of (count, mean confidence, accuracy) for each step of confidence that occurs.
    """
    raw, calibrated = probabilities(logits), probabilities(logits, temperature)
    right = logits.argmax(1) == targets
    rows = [row for row in per_label(logits, targets) if row["count"]]
    counts = confusion(logits, targets)
    support = counts.sum(1)
    return {
        "photographs": len(targets),
        "top1": rounded(right.mean()),
        "top1_interval": [rounded(bound) for bound in intervals.share(right, groups)],
        "top5": rounded(top_k(logits, targets, 5)),
        "balanced_accuracy": rounded(np.mean([row["accuracy"] for row in rows])),
        "macro_f1": rounded(f1(counts)[support > 0].mean()),
        "weighted_f1": rounded(np.average(f1(counts), weights=support)),
        **_calibration(calibrated, targets, ""),
        **_calibration(raw, targets, "_before_temperature"),
        "reliability": [[int(n), rounded(c), rounded(a)] for n, c, a in reliability(calibrated, targets) if n],
    }


def per_label(logits: np.ndarray, targets: np.ndarray, groups: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return a row for each label index.

    ``count`` images show it, ``predicted`` were labelled so, ``right`` are both; ``accuracy`` is its recall, with its
    ``interval``. A label without images has no accuracy, one that was never predicted no precision, one with neither
    no F1. ``groups`` has what each image comes from, if that is known.
    """
    counts, hits = confusion(logits, targets), logits.argmax(1) == targets
    shown = [np.flatnonzero(targets == label).tolist() for label in range(logits.shape[1])]
    bounds = [intervals.share(hits[images], [groups[i] for i in images] if groups else ()) for images in shown]
    columns = zip(counts.sum(1), counts.sum(0), np.diag(counts), bounds, strict=True)
    return [
        {
            "count": int(count),
            "predicted": int(predicted),
            "right": int(right),
            "accuracy": _share(right, count),
            "interval": [rounded(bound) for bound in within],
            "precision": _share(right, predicted),
            "f1": _share(2 * right, count + predicted),
        }
        for count, predicted, right, within in columns
    ]


def confusion(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return counts (C, C): a row per true label, a column per predicted one."""
    classes = logits.shape[1]
    flat = np.bincount(targets * classes + logits.argmax(1), minlength=classes * classes)
    return flat.reshape(classes, classes)


def f1(counts: np.ndarray) -> np.ndarray:
    """Return each label's F1 (C,) of its `confusion` (C, C): 0 for one that was neither shown nor predicted.

    Macro F1 is the mean over the labels that were shown.
    """
    scores: np.ndarray = 2 * np.diag(counts) / np.maximum(counts.sum(0) + counts.sum(1), 1)
    return scores


def top_k(logits: np.ndarray, targets: np.ndarray, k: int) -> float:
    """Return the share of images whose label is among the ``k`` highest logits."""
    return float(among_best(logits, targets, k).mean())


def among_best(logits: np.ndarray, targets: np.ndarray, k: int) -> np.ndarray:
    """Return for each image whether its label is among the ``k`` highest logits, (N,) bool."""
    best = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    among: np.ndarray = (best == targets[:, None]).any(1)
    return among


def separation(inside: np.ndarray, outside: np.ndarray) -> float:
    """Return the area under the ROC curve: the probability that an outside value exceeds an inside one."""
    ranks = rankdata(np.concatenate([inside, outside]))[len(inside) :]
    return float((ranks.sum() - len(outside) * (len(outside) + 1) / 2) / (len(inside) * len(outside)))


def share_with_interval(right: int, count: int) -> dict[str, Any]:
    """Return a share of ``count`` images and Wilson's interval, as metrics.json has them."""
    return {"share": rounded(right / count), "interval": [rounded(bound) for bound in wilson(right, count)]}


def rounded(value: float | np.floating[Any]) -> float:
    """Return a figure as metrics.json has it."""
    return round(float(value), 4)


def _calibration(probability: np.ndarray, targets: np.ndarray, suffix: str) -> dict[str, float]:
    figures = {
        "calibration_error": calibration_error(probability, targets),
        "calibration_error_debiased": debiased_error(probability.max(1), probability.argmax(1) == targets)[0],
        "calibration_error_equal_mass": equal_mass_error(probability, targets),
        "negative_log_likelihood": negative_log_likelihood(probability, targets),
        "brier": brier(probability, targets),
    }
    return {name + suffix: rounded(value) for name, value in figures.items()}


def _share(part: int, whole: int) -> float | None:
    return rounded(part / whole) if whole else None
