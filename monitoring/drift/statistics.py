"""Two-sample tests: how far apart a window and the reference are, and the probability of that by chance.

Ordered features are compared by the Kolmogorov-Smirnov test, the share of out-of-distribution images, where a few among
many must be detected, by Fisher's exact test, the label mix by a G-test whose p-value is simulated: with 102 labels and
50 images the chi-squared approximation does not hold, and the usual thresholds of the population stability index (0.1
and 0.25, from ten bins and thousands of cases) would alarm on every window.
"""

import functools

import numpy as np
from scipy.special import kolmogorov, xlogy
from scipy.stats import hypergeom

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
    null = _null(tuple(mix), int(window.sum()))
    above = len(null) - np.searchsorted(null, _g(window, window.sum() * mix), "left")
    return float((above + 1) / (len(null) + 1))


def g_test_two_samples(reference: np.ndarray, window: np.ndarray) -> float:
    """Return the p-value of counts (C,) when reference and window are both random draws, by permutation.

    All images of both are permuted into a reference and a window of the same sizes: exact, whatever the mix is.
    """
    pooled, size = reference + window, int(window.sum())
    share = size / pooled.sum()
    draws = np.random.default_rng(_SEED).multivariate_hypergeometric(pooled, size, _DRAWS, method="marginals")
    windows = np.vstack([window, draws])  # (1 + draws, C)
    statistic = _g(windows, share * pooled) + _g(pooled - windows, (1 - share) * pooled)
    return float((statistic[1:] >= statistic[0] - 1e-9).mean() * _DRAWS + 1) / (_DRAWS + 1)


def psi(reference: np.ndarray, window: np.ndarray) -> float:
    """Return the population stability index of counts (C,), the distance that is reported beside the p-value.

    The sum over the labels of (q - p) ln(q / p), half an image added to each count.
    """
    p, q = ((counts + 0.5) / (counts + 0.5).sum() for counts in (reference, window))
    return float(((q - p) * np.log(q / p)).sum())


@functools.lru_cache(maxsize=64)
def _null(mix: tuple[float, ...], size: int) -> np.ndarray:
    """Return G of windows drawn from the reference's mix, ascending."""
    probabilities = np.array(mix)
    windows = np.random.default_rng(_SEED).multinomial(size, probabilities, _DRAWS)  # (draws, C)
    return np.sort(_g(windows, size * probabilities))


def _mix(counts: np.ndarray) -> np.ndarray:
    """Return each label's share (C,)."""
    filled = np.where(counts > 0, counts, _UNSEEN)
    shares: np.ndarray = filled / filled.sum()
    return shares


def _g(observed: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return 2 sum(O ln(O / E)) over the last axis; E may be 0 where O is."""
    ratio = np.divide(observed, expected, out=np.ones(np.broadcast(observed, expected).shape), where=expected > 0)
    g: np.ndarray = 2 * xlogy(observed, ratio).sum(-1)
    return g
