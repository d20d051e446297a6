"""How unlike two samples are, and how often chance alone makes them so unlike.

Features with an order are compared by Kolmogorov and Smirnov's largest gap between two cumulative shares; the share of
strangers, where a few among many must be seen, by Fisher's exact test; the label mix by the population stability index
(PSI) with a bin for each label. PSI has no fixed threshold here: the usual 0.1 and
0.25 come from ten bins and thousands of cases; with 102 labels and 50 photographs chance alone gives 2.
"""

import functools

import numpy as np
from scipy.special import kolmogorov
from scipy.stats import hypergeom

_PSEUDO = 0.5  # added to every count, so that a label which did not occur divides nothing by zero
_DRAWS = 10_000  # makes a p-value of 0.001 certain to a third of itself
_SEED = 1


def largest_gap(reference: np.ndarray, window: np.ndarray) -> tuple[float, float]:
    """Return the Kolmogorov-Smirnov statistic of (M,) and (N,) values, and its p-value.

    The p-value is the asymptotic one with Stephens's correction for small samples (1970, J. R. Stat. Soc. B 32); ties
    make it larger than it need be, never smaller.
    """
    first, second = np.sort(reference), np.sort(window)
    places = np.concatenate([first, second])
    gaps = np.searchsorted(first, places, "right") / len(first) - np.searchsorted(second, places, "right") / len(second)
    gap = float(np.abs(gaps).max())
    root = np.sqrt(len(first) * len(second) / (len(first) + len(second)))
    return gap, float(kolmogorov((root + 0.12 + 0.11 / root) * gap))


def more_often(reference: np.ndarray, window: np.ndarray) -> tuple[float, float]:
    """Return the share of (N,) truths that hold in the window, and Fisher's exact p-value that it is no larger.

    Against (M,) truths of the reference; one-sided, because fewer strangers than usual are no reason to wake anybody.
    """
    both, held = len(reference) + len(window), int(reference.sum() + window.sum())
    return float(window.mean()), float(hypergeom.sf(int(window.sum()) - 1, both, held, len(window)))


def stability_index(reference: np.ndarray, window: np.ndarray) -> float:
    """Return the PSI of two arrays of counts (C,): the sum over the labels of (q - p) ln(q / p)."""
    return float(_index(_shares(reference), _shares(window)))


def stability_p_value(reference: np.ndarray, window: np.ndarray) -> float:
    """Return how often a window of the same size gives so large a PSI although the label mix has not changed."""
    chance = _chance(tuple(int(count) for count in reference), int(window.sum()))
    above = len(chance) - np.searchsorted(chance, stability_index(reference, window), "left")
    return float((above + 1) / (len(chance) + 1))


@functools.lru_cache(maxsize=256)
def _chance(reference: tuple[int, ...], size: int) -> np.ndarray:
    """Return PSIs of chance, ascending: reference and window both drawn from the reference's own mix."""
    counts = np.array(reference)
    mix, source = _shares(counts), np.random.default_rng(_SEED)
    references = source.multinomial(counts.sum(), mix, _DRAWS)  # (draws, C)
    windows = source.multinomial(size, mix, _DRAWS)
    return np.sort(_index(_shares(references), _shares(windows)))


def _shares(counts: np.ndarray) -> np.ndarray:
    smoothed = counts + _PSEUDO
    shares: np.ndarray = smoothed / smoothed.sum(-1, keepdims=True)
    return shares


def _index(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    index: np.ndarray = ((q - p) * np.log(q / p)).sum(-1)
    return index
