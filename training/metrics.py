"""What a set of logits is worth: accuracy with its uncertainty, calibration, and every label on its own."""

import math
from typing import Any

import numpy as np
from scipy.stats import rankdata

from training.calibrate import calibration_error, negative_log_likelihood, probabilities, reliability

_Z95 = 1.959964  # two-sided 95 % of the normal distribution


def summarise(logits: np.ndarray, targets: np.ndarray, temperature: float) -> dict[str, Any]:
    """Return the figures of (N, C) logits against (N,) label indices; shares are 0-1, intervals 95 %.

    ``reliability`` has a row of (count, mean confidence, accuracy) for each step of confidence that occurs.
    """
    raw, calibrated = probabilities(logits), probabilities(logits, temperature)
    right = logits.argmax(1) == targets
    low, high = wilson(int(right.sum()), len(right))
    return {
        "photographs": len(targets),
        "top1": _round(right.mean()),
        "top1_interval": [_round(low), _round(high)],
        "top5": _round(top_k(logits, targets, 5)),
        "balanced_accuracy": _round(np.mean([row["accuracy"] for row in per_label(logits, targets) if row["count"]])),
        "calibration_error": _round(calibration_error(calibrated, targets)),
        "calibration_error_before_temperature": _round(calibration_error(raw, targets)),
        "reliability": [[int(n), _round(c), _round(a)] for n, c, a in reliability(calibrated, targets) if n],
        "negative_log_likelihood": _round(negative_log_likelihood(calibrated, targets)),
        "negative_log_likelihood_before_temperature": _round(negative_log_likelihood(raw, targets)),
    }


def per_label(logits: np.ndarray, targets: np.ndarray) -> list[dict[str, Any]]:
    """Return, for each label index, how many photographs show it and the share of them that was recognised."""
    right = logits.argmax(1) == targets
    counts = np.bincount(targets, minlength=logits.shape[1])
    hits = np.bincount(targets, right, minlength=logits.shape[1])
    return [
        {"count": int(count), "right": int(hit), "accuracy": _round(hit / count) if count else None}
        for count, hit in zip(counts, hits, strict=True)
    ]


def confusion(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return counts (C, C): a row per true label, a column per predicted one."""
    classes = logits.shape[1]
    flat = np.bincount(targets * classes + logits.argmax(1), minlength=classes * classes)
    return flat.reshape(classes, classes)


def top_k(logits: np.ndarray, targets: np.ndarray, k: int) -> float:
    """Return the share of photographs whose label is among the ``k`` highest logits."""
    best = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    return float((best == targets[:, None]).any(1).mean())


def wilson(right: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927); it stays inside 0-1, unlike the normal one."""
    share, factor = right / count, _Z95**2 / count
    centre = (share + factor / 2) / (1 + factor)
    half = _Z95 / (1 + factor) * math.sqrt(share * (1 - share) / count + factor / (4 * count))
    return max(0.0, centre - half), min(1.0, centre + half)


def separation(inside: np.ndarray, outside: np.ndarray) -> float:
    """Return the area under the ROC curve: the chance that an outside value exceeds an inside one."""
    ranks = rankdata(np.concatenate([inside, outside]))[len(inside) :]
    return float((ranks.sum() - len(outside) * (len(outside) + 1) / 2) / (len(inside) * len(outside)))


def _round(value: float | np.floating[Any]) -> float:
    return round(float(value), 4)
