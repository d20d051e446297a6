"""Intervals of 95 %: how far a figure of N images may be from what endlessly many such images would give.

A share of the images: Wilson's score interval. A difference of two models on the same images: Tango's score interval. A
mean of losses, which a few large ones dominate: the studentized bootstrap. A share of images that come in groups, which
are alike: the bootstrap of the groups. A calibration error: see `calibration`. The
coverage of each is measured by simulation in tests/unit/training/evaluation/test_intervals.py.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from scipy.optimize import brentq
from scipy.sparse import csr_array
from scipy.stats import binomtest

RESAMPLES = 2000
SEED = 0
Z = 1.959964  # two-sided 95 % of the normal distribution
FEW_IMAGES = 100  # below this number an interval is so wide that reports warn of it
_CELLS = 4_000_000  # weights held at once


def wilson(right: int, count: int) -> tuple[float, float]:
    """Return the interval of a share (Wilson 1927); it stays inside 0-1 and is not empty for 0 or all of them."""
    low, high = binomtest(int(right), int(count)).proportion_ci(0.95, "wilson")
    return float(low), float(high)


def by_groups(values: np.ndarray, groups: Iterable[str]) -> tuple[float, float]:
    """Return the interval of the mean of (N,) values when whole groups are drawn (cluster bootstrap)."""
    _, of_group = np.unique(list(groups), return_inverse=True)
    sizes, sums = np.bincount(of_group), np.bincount(of_group, values)
    draws = np.random.default_rng(SEED).integers(len(sizes), size=(RESAMPLES, len(sizes)))
    low, high = np.percentile(sums[draws].sum(1) / sizes[draws].sum(1), [2.5, 97.5])
    return float(low), float(high)


def paired_difference(only_first: int, only_second: int, count: int) -> tuple[float, float]:
    """Return the interval of the difference of two shares of the same ``count`` images (Tango 1998).

    Args:
        only_first: images that only the first model got right; the difference is first minus second.
        only_second: images that only the second got right.
        count: all images.
    """
    difference = (only_first - only_second) / count

    def distance(delta: float) -> float:
        """Return the score statistic of the hypothesis that the difference is ``delta``."""
        a, b = 2 * count, -only_first - only_second + (2 * count - only_first + only_second) * delta
        share = (np.sqrt(max(b * b + 4 * a * only_second * delta * (1 - delta), 0.0)) - b) / (2 * a)
        variance = count * (2 * share + delta * (1 - delta))
        return float((only_first - only_second - count * delta) / np.sqrt(max(variance, 1e-12)))

    edge = 1 - 1e-9
    low = brentq(lambda delta: distance(delta) - Z, -edge, difference) if distance(-edge) > Z else -1.0
    high = brentq(lambda delta: distance(delta) + Z, difference, edge) if distance(edge) < -Z else 1.0
    return float(low), float(high)


def mean_interval(values: np.ndarray, resamples: int = RESAMPLES, seed: int = SEED) -> tuple[float, float]:
    """Return the interval of the mean of (N,) values, one per image, by the studentized bootstrap.

    Percentiles of resampled means miss the mean of losses too often from below, because the few large ones that matter
    are rarer in a sample than one resample can tell (Efron & Tibshirani 1993, section 12.5).
    """
    count, mean, spread = len(values), values.mean(), values.std()
    if spread == 0:
        return float(mean), float(mean)
    statistics = []
    for drawn in weights(count, resamples, seed):
        means = drawn @ values / count
        spreads = np.sqrt(np.maximum(drawn @ (values - mean) ** 2 / count - (means - mean) ** 2, 0))
        # A resample of equal values knows nothing of the spread; the sample's stands in.
        statistics.append((means - mean) / np.where(spreads > 1e-12 * spread, spreads, spread))
    low, high = np.percentile(np.concatenate(statistics), [2.5, 97.5])
    return float(mean - high * spread), float(mean - low * spread)


def macro_f1_interval(
    predicted: np.ndarray, targets: np.ndarray, labels: int, resamples: int = RESAMPLES, seed: int = SEED
) -> tuple[float, float]:
    """Return the percentile bootstrap's interval of the mean F1 of the labels that have images.

    Args:
        predicted: (N,) label indices.
        targets: (N,) label indices.
        labels: how many there are.
    """
    ones = np.ones(len(targets))
    shown, named = _columns(targets, labels, ones), _columns(predicted, labels, ones)
    hits = _columns(targets, labels, (predicted == targets).astype(np.float64))
    scores = []
    for drawn in weights(len(targets), resamples, seed):
        support = drawn @ shown  # (R, C)
        f1 = 2 * (drawn @ hits) / np.maximum(support + drawn @ named, 1)
        scores.append((f1 * (support > 0)).sum(1) / (support > 0).sum(1))
    low, high = np.percentile(np.concatenate(scores), [2.5, 97.5])
    return float(low), float(high)


def weights(count: int, resamples: int = RESAMPLES, seed: int = SEED) -> Iterator[np.ndarray]:
    """Yield rows (R, N) that sum to N, ``resamples`` in all: how often each resample holds each image.

    A figure of all resamples is then one product of matrices (Efron & Tibshirani 1993, chapter 6).
    """
    rng = np.random.default_rng(seed)
    step = max(1, _CELLS // count)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        yield rng.multinomial(count, np.full(count, 1 / count), size=rows).astype(np.float64)


def few_images(count: int) -> str | None:
    """Return a warning when figures of so few images decide little, else None."""
    if count >= FEW_IMAGES:
        return None
    return (
        f"**Only {count} images: the intervals are wide and differences of a few points mean nothing. "
        f"Collect at least {FEW_IMAGES}, better several hundred, before relying on these figures.**"
    )


def _columns(indices: np.ndarray, columns: int, values: np.ndarray) -> csr_array:
    """Return (N, columns) with each row's value in the column of its index and zeros elsewhere."""
    return csr_array((values, (np.arange(len(indices)), indices)), shape=(len(indices), columns))
