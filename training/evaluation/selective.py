"""Selective prediction: how accurate a model is when it may withhold its least confident predictions."""

import math
from typing import Any

import numpy as np

from training.evaluation.metrics import rounded, share_with_interval

COVERAGES = (1.0, 0.95, 0.9, 0.8)
_DECIMALS = 4  # of a stated threshold


def risks(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the share of wrong predictions among the k most confident ones, (N,), for k = 1 to N.

    Predictions of equal confidence have no order: each counts with their common share of wrong ones.

    Args:
        confidence: (N,) probabilities of the best label.
        right: (N,) whether it was the label.
    """
    _, group, sizes = np.unique(-confidence, return_inverse=True, return_counts=True)
    shares = np.bincount(group, ~right) / sizes
    by_count: np.ndarray = np.cumsum(np.repeat(shares, sizes)) / np.arange(1, len(right) + 1)
    return by_count


def area(confidence: np.ndarray, right: np.ndarray) -> float:
    """Return the area under the risk-coverage curve, 0-1, lower is better (Geifman & El-Yaniv 2017)."""
    return float(risks(confidence, right).mean())


def threshold_for(coverage: float, confidence: np.ndarray) -> float:
    """Return the threshold on (N,) confidences that at least a share of them, 0-1, reach.

    Rounded down, so that the image at the boundary reaches the threshold as it is stated.
    """
    boundary = float(np.sort(confidence)[::-1][int(np.ceil(coverage * len(confidence) - 1e-9)) - 1])
    scale: int = 10**_DECIMALS
    return math.floor(boundary * scale) / scale


def at(threshold: float, confidence: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    """Return what a threshold answers of (N,) images, and how accurately; nothing answered has no accuracy."""
    kept_right = right[confidence >= threshold]
    answered = share_with_interval(len(kept_right), len(right))
    nothing: dict[str, Any] = {"share": None, "interval": None}
    accuracy = share_with_interval(int(kept_right.sum()), len(kept_right)) if len(kept_right) else nothing
    return {
        "threshold": rounded(threshold),
        "answered": len(kept_right),
        "answered_share": answered["share"],
        "answered_interval": answered["interval"],
        "wrong": int((~kept_right).sum()),
        "accuracy": accuracy["share"],
        "accuracy_interval": accuracy["interval"],
    }
