"""Bootstrap: how far the figures of N photographs may be off, by drawing those photographs again and again.

Each resample is a row of N weights, how often each photograph was drawn (Efron & Tibshirani 1993, chapter 6), so that a
figure of all resamples is one product of matrices. Intervals are percentiles, 2.5 to 97.5.
"""

from collections.abc import Callable, Iterator

import numpy as np
from scipy.sparse import csr_array

from training.evaluation.calibration import BINS, bin_of, log_losses, probabilities
from training.evaluation.metrics import among_best, rounded

RESAMPLES = 2000
SEED = 0
_CELLS = 4_000_000  # weights held at once


def intervals(
    logits: np.ndarray, targets: np.ndarray, temperature: float, resamples: int = RESAMPLES, seed: int = SEED
) -> dict[str, list[float]]:
    """Return the 95 % intervals of top1, top5, macro_f1, calibration_error and negative_log_likelihood.

    The calibration error is 0 or more by its making, so that noise only adds to it: its interval leans upwards.

    Args:
        logits: (N, C).
        targets: (N,) label indices.
        temperature: divides the logits.
    """
    figures = _figures(logits, targets, temperature)
    pieces = [{name: of(w) for name, of in figures.items()} for w in weights(len(targets), resamples, seed)]
    return {name: _percentiles(np.concatenate([piece[name] for piece in pieces])) for name in figures}


def mean_interval(values: np.ndarray, resamples: int = RESAMPLES, seed: int = SEED) -> list[float]:
    """Return the 95 % interval of the mean of (N,) values, one per photograph: paired differences, for instance."""
    return _percentiles(np.concatenate([w @ values / len(values) for w in weights(len(values), resamples, seed)]))


def weights(count: int, resamples: int = RESAMPLES, seed: int = SEED) -> Iterator[np.ndarray]:
    """Yield rows (R, N) that sum to N, ``resamples`` in all: how often each resample holds each photograph."""
    generator = np.random.default_rng(seed)
    step = max(1, _CELLS // count)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        yield generator.multinomial(count, np.full(count, 1 / count), size=rows).astype(np.float64)


def _figures(
    logits: np.ndarray, targets: np.ndarray, temperature: float
) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Return functions of weights (R, N) -> a figure of each resample, (R,)."""
    count, classes = logits.shape
    found, predicted = probabilities(logits, temperature), logits.argmax(1)
    right = (predicted == targets).astype(np.float64)
    confidence = found.max(1)
    losses, in_five = log_losses(found, targets), among_best(logits, targets, 5).astype(np.float64)
    gaps = _spread(bin_of(confidence, BINS), BINS, confidence - right)
    shown, said = (_spread(place, classes, np.ones(count)) for place in (targets, predicted))
    hit = _spread(targets, classes, right)

    def macro_f1(w: np.ndarray) -> np.ndarray:
        support = w @ shown  # (R, C)
        scores = 2 * (w @ hit) / np.maximum(support + w @ said, 1)
        mean: np.ndarray = (scores * (support > 0)).sum(1) / (support > 0).sum(1)
        return mean

    return {
        "top1": lambda w: w @ right / count,
        "top5": lambda w: w @ in_five / count,
        "macro_f1": macro_f1,
        "calibration_error": lambda w: np.abs(w @ gaps).sum(1) / count,
        "negative_log_likelihood": lambda w: w @ losses / count,
    }


def _spread(places: np.ndarray, columns: int, values: np.ndarray) -> csr_array:
    """Return (N, columns) with each row's value at its place and zeros elsewhere."""
    rows = np.arange(len(places))
    return csr_array((values, (rows, places)), shape=(len(places), columns))


def _percentiles(values: np.ndarray) -> list[float]:
    return [rounded(bound) for bound in np.percentile(values, [2.5, 97.5])]
