"""Calibration: the difference between stated probabilities and accuracy, and the temperature that reduces it."""

import numpy as np
from scipy.optimize import brentq, minimize_scalar
from scipy.special import ndtr

BINS = 15  # as in Guo et al. 2017, so that the numbers can be compared
FEWEST = 30  # images below which no temperature is fitted
_FOLDS = 10
_RANGE = (0.05, 20.0)
_DRAWS = 2000  # of the errors of the bins


def probabilities(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return softmax(logits / temperature), (N, C) float64."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(1, keepdims=True)
    return shares


def fit_temperature(logits: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Return the temperature that minimises the negative log likelihood (Guo et al. 2017, arXiv 1706.04599).

    A weak prior towards 1, worth one image: a few images that are all right would call for infinite confidence.

    Args:
        logits: (N, C) of images that were not trained on.
        targets: (N,) label indices.
        weights: (N,) how much each image counts; None counts all alike.
    """
    optimum = minimize_scalar(
        lambda power: (
            np.average(log_losses(probabilities(logits, float(np.exp(power))), targets), weights=weights)
            + power**2 / len(targets)
        ),
        bounds=tuple(np.log(_RANGE)),
        method="bounded",
    )
    return float(np.exp(optimum.x))


def choose_temperature(logits: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> tuple[float, str]:
    """Return `fit_temperature`, or 1 and why where it cannot be trusted; the arguments are the same.

    Of fewer than ``FEWEST`` images a fitted temperature is often worse than none (docs/LOG.md). Of more it is kept if
    it lowers the loss in cross-validation: fitted on nine tenths of the images, measured on the last.
    """
    if len(targets) < FEWEST:
        return 1.0, f"{len(targets)} validation images are too few to fit one, at least {FEWEST} are needed"
    fold = np.arange(len(targets)) % _FOLDS
    losses = np.empty(len(targets))
    for held_out in (fold == number for number in range(_FOLDS)):
        part = weights[~held_out] if weights is not None else None
        temperature = fit_temperature(logits[~held_out], targets[~held_out], part)
        losses[held_out] = log_losses(probabilities(logits[held_out], temperature), targets[held_out])
    gain = np.average(log_losses(probabilities(logits), targets) - losses, weights=weights)
    if gain <= 0:
        return 1.0, (
            f"one that was fitted on nine tenths of the {len(targets)} validation images did not lower the loss of the "
            f"others (by {gain:.2g} nats in the mean)"
        )
    return fit_temperature(logits, targets, weights), ""


def negative_log_likelihood(probability: np.ndarray, targets: np.ndarray) -> float:
    """Return the mean of -log p(label) in nats; ``probability`` is (N, C)."""
    return float(log_losses(probability, targets).mean())


def log_losses(probability: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return -log p(label) of each image, (N,) in nats; ``probability`` is (N, C)."""
    of_label = probability[np.arange(len(targets)), targets]
    losses: np.ndarray = -np.log(np.maximum(of_label, np.finfo(np.float64).tiny))
    return losses


def reliability(probability: np.ndarray, targets: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Return `by_confidence` of (N, C) probabilities against (N,) label indices."""
    return by_confidence(probability.max(1), probability.argmax(1) == targets, bins)


def by_confidence(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Return one row of (count, mean confidence, accuracy) for each of ``bins`` equal steps of confidence.

    Args:
        confidence: (N,) probabilities of the best label.
        right: (N,) whether it was the label.
    """
    index = bin_of(confidence, bins)
    counts = np.bincount(index, minlength=bins)
    filled = np.maximum(counts, 1)
    means = np.bincount(index, confidence, minlength=bins) / filled
    return np.stack([counts, means, np.bincount(index, right, minlength=bins) / filled], axis=1)


def bin_of(confidence: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Return the index (N,), 0 to bins - 1, of each confidence (N,) among equal steps; a step holds its upper end."""
    index: np.ndarray = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return index


def calibration_error(probability: np.ndarray, targets: np.ndarray, bins: int = BINS) -> float:
    """Return the expected calibration error, 0-1: |confidence - accuracy| averaged over images, bin by bin."""
    return confidence_error(reliability(probability, targets, bins))


def confidence_error(rows: np.ndarray) -> float:
    """Return the expected calibration error of the rows of `by_confidence`."""
    return float((rows[:, 0] * np.abs(rows[:, 1] - rows[:, 2])).sum() / rows[:, 0].sum())


def debiased_error(
    confidence: np.ndarray, right: np.ndarray, bins: int = BINS, effect: float = 1.0
) -> tuple[float, float, float]:
    """Return the calibration error without its bias, and its 95 % interval.

    The plain error is a sum of absolute values, to which chance only adds: a perfectly calibrated model never has 0.
    The estimate subtracts what chance adds to normal errors of the bins (Kumar et al. 2019, arXiv 1909.10155). The
    interval has the factors by which the measured differences may be multiplied so that the plain error stays between
    the 2.5 and 97.5 % quantiles of what it would then be: a perfectly calibrated model's begins at 0 in 97.5 % of
    samples. The upper quantile is relative to the share of perfect models whose error is as small (Read 2002, "CLs"):
    otherwise the interval of a lucky sample would be empty.

    Args:
        confidence: (N,) probabilities of the best label.
        right: (N,) whether it was the label.
        bins: equal steps of confidence.
        effect: how many of the images count as one independent image (`intervals.design_effect`).
    """
    index, count = bin_of(confidence, bins), len(confidence)
    sizes = np.bincount(index, minlength=bins)
    filled = sizes > 0
    size = sizes[filled]
    stated = np.bincount(index, confidence, minlength=bins)[filled]
    correct = np.bincount(index, right, minlength=bins)[filled]
    gaps = (stated - correct) / count
    total = float(np.abs(gaps).sum())
    if np.isinf(effect):
        return total, 0.0, 1.0
    noise = np.random.default_rng(0).standard_normal((_DRAWS, len(gaps)))

    def deviations(factor: float) -> np.ndarray:
        """Return the standard deviations of the gaps if they were ``factor`` times those measured."""
        expected = np.clip(stated - factor * (stated - correct), 0, size)
        # With one image more that is right as often as stated: a bin without a mistake has a spread.
        accuracy = (expected + stated / size) / (size + 1)
        variances = size * accuracy * (1 - accuracy) + (factor * gaps * count) ** 2 / size * (1 - size / count)
        result: np.ndarray = np.sqrt(np.maximum(variances, 1e-12) * effect) / count
        return result

    def excess(factor: float, quantile: float) -> float:
        return float(np.quantile(np.abs(factor * gaps + noise * deviations(factor)).sum(1), quantile)) - total

    def bound(quantile: float) -> float:
        if excess(0, quantile) >= 0:
            return 0.0
        highest = 2.0
        while excess(highest, quantile) < 0 and highest < 1e6:
            highest *= 2
        return total * float(brentq(excess, 0, highest, (quantile,), xtol=1e-4)) if highest < 1e6 else 1.0

    # Relative to a perfect model's share of errors as small as this one: a fortunate sample does not prove perfection.
    below = float((np.abs(noise * deviations(0)).sum(1) <= total).mean())
    low, high = bound(0.975), min(bound(max(0.025 * below, 1 / _DRAWS)), 1.0)
    absolute, spread = np.abs(gaps), deviations(1)
    folded = spread * np.sqrt(2 / np.pi) * np.exp(-(absolute**2) / (2 * spread**2)) + absolute * (
        1 - 2 * ndtr(-absolute / spread)
    )  # the mean of a folded normal distribution
    return min(max(float((2 * absolute - folded).sum()), low), high), low, high


def equal_mass_error(probability: np.ndarray, targets: np.ndarray, bins: int = BINS) -> float:
    """Return the calibration error of bins that hold equally many images (Nguyen & O'Connor 2015), 0-1.

    A good model is confident about nearly all images: of equal steps of confidence one then holds most of them.
    """
    confidence, right = probability.max(1), probability.argmax(1) == targets
    parts = np.array_split(np.argsort(confidence, kind="stable"), min(bins, len(targets)))
    return float(sum(abs(confidence[part].sum() - right[part].sum()) for part in parts) / len(targets))


def brier(probability: np.ndarray, targets: np.ndarray) -> float:
    """Return the mean squared distance of probabilities (N, C) from the truth, 0-2 (Brier 1950)."""
    of_label = probability[np.arange(len(targets)), targets]
    # (p - y)^2 summed over labels, y being 1 for the label and 0 elsewhere.
    return float(((probability**2).sum(1) - 2 * of_label + 1).mean())
