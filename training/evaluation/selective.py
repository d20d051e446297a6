"""Selective prediction: how accurate a model is when it may leave its least sure answers unsaid."""

from typing import Any

import numpy as np

from training.evaluation.metrics import rounded, wilson

COVERAGES = (1.0, 0.95, 0.9, 0.8)


def risks(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the share of wrong answers among the k surest ones, (N,), for k = 1 to N.

    Answers of equal confidence come in no order: each counts with their common share of wrong ones.

    Args:
        confidence: (N,) probabilities of the best label.
        right: (N,) whether it was the label.
    """
    _, group, sizes = np.unique(-confidence, return_inverse=True, return_counts=True)
    shares = np.bincount(group, ~right) / sizes
    found: np.ndarray = np.cumsum(np.repeat(shares, sizes)) / np.arange(1, len(right) + 1)
    return found


def area(confidence: np.ndarray, right: np.ndarray) -> float:
    """Return the area under the risk-coverage curve, 0-1, lower is better (Geifman & El-Yaniv 2017)."""
    return float(risks(confidence, right).mean())


def at(coverage: float, confidence: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    """Return what a threshold on confidence keeps that answers at least ``coverage``, 0-1, of (N,) photographs.

    ``answered`` counts its photographs, more than asked for where several are equally sure; ``threshold`` is the least
    confidence among them.
    """
    threshold = np.sort(confidence)[::-1][int(np.ceil(coverage * len(right) - 1e-9)) - 1]
    kept = right[confidence >= threshold]
    return {
        "coverage": coverage,
        "threshold": rounded(threshold),
        "answered": len(kept),
        "wrong": int((~kept).sum()),
        "accuracy": rounded(kept.mean()),
        "accuracy_interval": [rounded(bound) for bound in wilson(int(kept.sum()), len(kept))],
    }
