"""Two-sample tests: how far apart a window and the reference are, and the probability of that by chance.

Ordered features are compared by the Kolmogorov-Smirnov test; the share of out-of-distribution images, where a few among
many must be detected, by Fisher's exact test; the label mix by the population stability index (PSI) with a bin for each
label. PSI has no fixed threshold here: the usual 0.1 and 0.25 come from ten bins and thousands of cases; with 102
labels and 50 images chance alone gives 2.
"""

import functools

import numpy as np
from scipy.special import kolmogorov
from scipy.stats import hypergeom

_PSEUDO = 0.5  # added to every count, so that a label without images causes no division by zero
_DRAWS = 10_000  # a p-value of 0.001 is known to a third of itself
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
    """Return the share of true values in the window (N,) bool, and Fisher's exact p-value that it is no larger.

    Against the reference (M,) bool; one-sided, because fewer out-of-distribution images than usual need no alarm.
    """
    both, positive = len(reference) + len(window), int(reference.sum() + window.sum())
    return float(window.mean()), float(hypergeom.sf(int(window.sum()) - 1, both, positive, len(window)))


def psi(reference: np.ndarray, window: np.ndarray) -> float:
    """Return the PSI of two arrays of counts (C,): the sum over the labels of (q - p) ln(q / p)."""
    return float(_psi(_shares(reference), _shares(window)))


def psi_p_value(reference: np.ndarray, window: np.ndarray) -> float:
    """Return the probability of so large a PSI in a window of this size when the label mix has not changed."""
    null = _null(tuple(int(count) for count in reference), int(window.sum()))
    above = len(null) - np.searchsorted(null, psi(reference, window), "left")
    return float((above + 1) / (len(null) + 1))


@functools.lru_cache(maxsize=256)
def _null(reference: tuple[int, ...], size: int) -> np.ndarray:
    """Return PSIs by chance, ascending: reference and window both drawn from the reference's own mix."""
    counts = np.array(reference)
    mix, rng = _shares(counts), np.random.default_rng(_SEED)
    references = rng.multinomial(counts.sum(), mix, _DRAWS)  # (draws, C)
    windows = rng.multinomial(size, mix, _DRAWS)
    return np.sort(_psi(_shares(references), _shares(windows)))


def _shares(counts: np.ndarray) -> np.ndarray:
    smoothed = counts + _PSEUDO
    shares: np.ndarray = smoothed / smoothed.sum(-1, keepdims=True)
    return shares


def _psi(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    index: np.ndarray = ((q - p) * np.log(q / p)).sum(-1)
    return index
