"""Calibration: how far probabilities can be trusted, and the one temperature that makes them so."""

import numpy as np
from scipy.optimize import minimize_scalar

BINS = 15  # as in Guo et al. 2017, so that the numbers can be compared
_RANGE = (0.05, 20.0)


def probabilities(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return softmax(logits / temperature), (N, C) float64."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(1, keepdims=True))
    found: np.ndarray = powers / powers.sum(1, keepdims=True)
    return found


def fit_temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    """Return the temperature that minimises the negative log likelihood (Guo et al. 2017, arXiv 1706.04599).

    A weak pull towards 1, worth one photograph: a few photographs that are all right would call for endless certainty.

    Args:
        logits: (N, C) of photographs that were not trained on.
        targets: (N,) label indices.
    """
    found = minimize_scalar(
        lambda power: (
            negative_log_likelihood(probabilities(logits, float(np.exp(power))), targets) + power**2 / len(targets)
        ),
        bounds=tuple(np.log(_RANGE)),
        method="bounded",
    )
    return float(np.exp(found.x))


def negative_log_likelihood(found: np.ndarray, targets: np.ndarray) -> float:
    """Return the mean of -log p(label) in nats; ``found`` is (N, C) probabilities."""
    return float(log_losses(found, targets).mean())


def log_losses(found: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return -log p(label) of each photograph, (N,) in nats; ``found`` is (N, C) probabilities."""
    own = found[np.arange(len(targets)), targets]
    losses: np.ndarray = -np.log(np.maximum(own, np.finfo(np.float64).tiny))
    return losses


def reliability(found: np.ndarray, targets: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Return `by_confidence` of (N, C) probabilities against (N,) label indices."""
    return by_confidence(found.max(1), found.argmax(1) == targets, bins)


def by_confidence(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Return one row of (count, mean confidence, accuracy) for each of ``bins`` equal steps of confidence.

    Args:
        confidence: (N,) probabilities of the best label.
        right: (N,) whether it was the label.
    """
    place = bin_of(confidence, bins)
    counts = np.bincount(place, minlength=bins)
    filled = np.maximum(counts, 1)
    means = np.bincount(place, confidence, minlength=bins) / filled
    return np.stack([counts, means, np.bincount(place, right, minlength=bins) / filled], axis=1)


def bin_of(confidence: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Return the place (N,), 0 to bins - 1, of each confidence (N,) among equal steps; a step holds its upper end."""
    place: np.ndarray = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return place


def calibration_error(found: np.ndarray, targets: np.ndarray, bins: int = BINS) -> float:
    """Return the expected calibration error, 0-1: |confidence - accuracy| averaged over photographs, bin by bin."""
    return confidence_error(reliability(found, targets, bins))


def confidence_error(rows: np.ndarray) -> float:
    """Return the expected calibration error of the rows of `by_confidence`."""
    return float((rows[:, 0] * np.abs(rows[:, 1] - rows[:, 2])).sum() / rows[:, 0].sum())


def equal_mass_error(found: np.ndarray, targets: np.ndarray, bins: int = BINS) -> float:
    """Return the calibration error of bins that hold equally many photographs (Nguyen & O'Connor 2015), 0-1.

    A good model is sure of nearly everything: of equal steps of confidence one then holds nearly all photographs.
    """
    confidence, right = found.max(1), found.argmax(1) == targets
    parts = np.array_split(np.argsort(confidence, kind="stable"), min(bins, len(targets)))
    return float(sum(abs(confidence[part].sum() - right[part].sum()) for part in parts) / len(targets))


def brier(found: np.ndarray, targets: np.ndarray) -> float:
    """Return the mean squared distance of probabilities (N, C) from the truth, 0-2 (Brier 1950)."""
    own = found[np.arange(len(targets)), targets]
    # (p - y)^2 summed over labels, y being 1 for the label and 0 elsewhere.
    return float(((found**2).sum(1) - 2 * own + 1).mean())
