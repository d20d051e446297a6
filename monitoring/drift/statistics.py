"""Two-sample tests: how far apart a window and the reference are, and the probability of that by chance.

Ordered features are compared by the Kolmogorov-Smirnov test, the share of out-of-distribution images, where a few among
many must be detected, by Fisher's exact test. The label mix is compared by two statistics whose p-value is simulated:
G, the sum of the labels' deviances, detects that many labels have changed a little, the largest of them that one has
changed much, which the others' chance hides in G. With 102 labels and 50 images the chi-squared approximation does not
hold, and the usual thresholds of the population stability index (0.1 and 0.25, from ten bins and thousands of cases)
would alarm on every window.
"""

import functools

import numpy as np
from scipy.special import kolmogorov, xlogy
from scipy.stats import hypergeom, rankdata

_DRAWS = 10_000  # a p-value of 0.001 is known to a third of itself
_UNSEEN = 0.5  # the count of a label that the reference does not have
_SEED = 1


def ks_test(reference: np.ndarray, window: np.ndarray) -> tuple[float, float]:
    """Return the Kolmogorov-Smirnov statistic of (M,) and (N,) values, and its p-value.

    The p-value is the asymptotic one with Stephens's correction for small samples (1970, J. R. Stat. Soc. B 32); ties
    make it larger than necessary, never smaller.
    """
    first, second = np.sort(reference), np.sort(window)
    points = np.concatenate([first, second])
    gaps = np.searchsorted(first, points, "right") / len(first) - np.searchsorted(second, points, "right") / len(second)
    gap = float(np.abs(gaps).max())
    root = np.sqrt(len(first) * len(second) / (len(first) + len(second)))
    return gap, float(kolmogorov((root + 0.12 + 0.11 / root) * gap))


def proportion_test(reference: np.ndarray, window: np.ndarray) -> tuple[float, float]:
    """Return the share of true values in the window (N,) bool, and Fisher's exact p-value that it has not grown.

    Against the reference (M,) bool; one-sided, because fewer out-of-distribution images than usual need no alarm.
    """
    both, positive = len(reference) + len(window), int(reference.sum() + window.sum())
    return float(window.mean()), float(hypergeom.sf(int(window.sum()) - 1, both, positive, len(window)))


def g_test(reference: np.ndarray, window: np.ndarray) -> float:
    """Return the p-value of counts (C,) when the reference's mix is exact and only the window is a random draw.

    So it is for a stratified split, which has the labels in the proportions of the whole data set. Simulating the
    reference too would add the variation of a random draw that was never made, and hide changes behind it.
    """
    mix = _mix(reference)
    return _p_value(_both(_deviances(window, window.sum() * mix)), *_null(tuple(mix), int(window.sum())))


def g_test_two_samples(reference: np.ndarray, window: np.ndarray) -> float:
    """Return the p-value of counts (C,) when reference and window are both random draws, by permutation.

    All images of both are permuted into a reference and a window of the same sizes: exact, whatever the mix is.
    """
    pooled, size = reference + window, int(window.sum())
    share = size / pooled.sum()
    draws = np.random.default_rng(_SEED).multivariate_hypergeometric(pooled, size, _DRAWS, method="marginals")
    windows = np.vstack([window, draws])  # (1 + draws, C)
    statistics = _both(_deviances(windows, share * pooled) + _deviances(pooled - windows, (1 - share) * pooled))
    return _p_value(statistics[0], statistics[1:], _ranks(statistics[1:]))


def psi(reference: np.ndarray, window: np.ndarray) -> float:
    """Return the population stability index of counts (C,), the distance that is reported beside the p-value.

    The sum over the labels of (q - p) ln(q / p), half an image added to each count.
    """
    p, q = ((counts + 0.5) / (counts + 0.5).sum() for counts in (reference, window))
    return float(((q - p) * np.log(q / p)).sum())


@functools.lru_cache(maxsize=64)
def _null(mix: tuple[float, ...], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return both statistics of windows drawn from the reference's mix, (draws, 2), and their `_ranks`."""
    probabilities = np.array(mix)
    windows = np.random.default_rng(_SEED).multinomial(size, probabilities, _DRAWS)  # (draws, C)
    statistics = _both(_deviances(windows, size * probabilities))
    return statistics, _ranks(statistics)


def _mix(counts: np.ndarray) -> np.ndarray:
    """Return each label's share (C,)."""
    filled = np.where(counts > 0, counts, _UNSEEN)
    shares: np.ndarray = filled / filled.sum()
    return shares


def _deviances(observed: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return 2 (O ln(O / E) - O + E) of each label, (..., C), whose sum is G; E may be 0 where O is."""
    ratio = np.divide(observed, expected, out=np.ones(np.broadcast(observed, expected).shape), where=expected > 0)
    deviances: np.ndarray = 2 * (xlogy(observed, ratio) - observed + expected)
    return deviances


def _both(deviances: np.ndarray) -> np.ndarray:
    """Return the sum and the largest of (..., C) deviances, (..., 2); equal counts have equal values."""
    return np.round(np.stack([deviances.sum(-1), deviances.max(-1)], axis=-1), 9)


def _ranks(statistics: np.ndarray) -> np.ndarray:
    """Return how many of (N, 2) values are as high or higher, by column."""
    ranks: np.ndarray = rankdata(-statistics, method="max", axis=0)
    return ranks


def _p_value(observed: np.ndarray, null: np.ndarray, ranks: np.ndarray) -> float:
    """Return the p-value of the more surprising of two statistics (2,), given both of simulated windows (draws, 2).

    Of all windows, the observed one included, the share with as high a rank in one of the statistics or a higher one
    (Westfall & Young 1993, min P): exact, however the two depend on each other. ``ranks`` are `_ranks` of ``null``.
    """
    highest = 1 + (null >= observed).sum(0).min()
    as_high = (ranks + (null <= observed)).min(1) <= highest
    return float((as_high.sum() + 1) / (len(null) + 1))
