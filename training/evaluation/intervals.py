"""Intervals of 95 %: how far a figure of N images may be from what endlessly many such images would give.

A share of the images: Wilson's score interval. A difference of two models on the same images: Tango's score interval. A
mean of losses, which a few large ones dominate: the studentized bootstrap. A calibration error: see `calibration`.
Images of one group, such as a website, are alike: they count as fewer (`design_effect`). The coverage of each is
measured by simulation in tests/unit/training/evaluation/test_intervals.py.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.stats import t as student

RESAMPLES = 2000
SEED = 0
Z = 1.959964  # two-sided 95 % of the normal distribution
FEW_IMAGES = 100  # below this number an interval is so wide that reports warn of it
_CELLS = 4_000_000  # weights held at once


def wilson(right: float, count: float) -> tuple[float, float]:
    """Return the interval of a share (Wilson 1927); it stays inside 0-1 and is not empty for 0 or all of them.

    ``count`` may be the effective number of images, and ``right`` that share of it.
    """
    if not count:
        return 0.0, 1.0
    share, spread = right / count, Z**2 / count
    middle = share + spread / 2
    half = math.sqrt(share * (1 - share) * spread + spread**2 / 4)
    low, high = ((middle + sign * half) / (1 + spread) for sign in (-1, 1))
    return (max(0.0, low) if right else 0.0), (min(1.0, high) if right < count else 1.0)


def design_effect(values: np.ndarray, groups: Sequence[str]) -> float:
    """Return how many images of groups count as one independent image: 1 without groups, infinite for a single group.

    The variance of the mean of (N,) values over groups, as a multiple of that over images (Kish 1965), with the wider
    quantile of few groups (Korn & Graubard 1998). Where all values are equal a whole group counts as one image.
    """
    if not len(groups):
        return 1.0
    _, of_group = np.unique(list(groups), return_inverse=True)
    sizes = np.bincount(of_group)
    if len(sizes) == 1:
        return math.inf
    sums, independent = np.bincount(of_group, values - values.mean()), len(values) * values.var()
    clustered = len(sizes) / (len(sizes) - 1) * (sums**2).sum()
    effect = max(1.0, clustered / independent) if independent > 0 else len(values) / len(sizes)
    return float(effect * (student.ppf(0.975, len(sizes) - 1) / Z) ** 2)


def share(right: np.ndarray, groups: Sequence[str] = ()) -> tuple[float, float]:
    """Return the interval of the share of (N,) right answers; ``groups`` has what each image comes from."""
    effect = design_effect(right.astype(np.float64), groups)
    return wilson(right.sum() / effect, len(right) / effect)


def paired(first: np.ndarray, second: np.ndarray, groups: Sequence[str] = ()) -> tuple[float, float]:
    """Return the interval of the share of (N,) first answers that are right minus that of the second."""
    effect = design_effect(first.astype(np.float64) - second, groups)
    only_first, only_second = (first & ~second).sum() / effect, (~first & second).sum() / effect
    return paired_difference(only_first, only_second, len(first) / effect)


def paired_difference(only_first: float, only_second: float, count: float) -> tuple[float, float]:
    """Return the interval of the difference of two shares of the same ``count`` images (Tango 1998).

    Args:
        only_first: images that only the first model got right; the difference is first minus second.
        only_second: images that only the second got right.
        count: all images, or their effective number and those above in proportion.
    """
    if not count:
        return -1.0, 1.0
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


def area(inside: np.ndarray, outside: np.ndarray) -> tuple[float, float]:
    """Return the interval of the area under the ROC curve, that an outside value (N,) exceeds an inside one (M,).

    Wilson's, for as many images as have the area's variance: that of DeLong et al. (1988), or that of exponential
    distributions (Hanley & McNeil 1982) where it is larger, as it is of few or completely separate values.
    """
    below, above = np.sort(inside), np.sort(outside)
    of_outside, of_inside = _midranks(below, outside), 1 - _midranks(above, inside)
    count_in, count_out, value = len(inside), len(outside), float(of_outside.mean())
    pairs = (count_in + count_out) / 2 - 1
    per_odds = (1 + pairs * (1 - value) / (2 - value) + pairs * value / (1 + value)) / (count_in * count_out)
    if 0 < value < 1 and min(count_in, count_out) > 1:
        spread = of_outside.var(ddof=1) / count_out + of_inside.var(ddof=1) / count_in
        per_odds = max(per_odds, spread / (value * (1 - value)))
    return wilson(value / per_odds, 1 / per_odds)


def below_quantile(inside: np.ndarray, outside: np.ndarray, share_inside: float) -> tuple[float, float]:
    """Return the interval of the share of outside values (N,) that do not exceed a quantile of the inside ones (M,).

    Both the share (Wilson's interval) and the quantile (its order statistics) are uncertain; the distances of the two
    from the estimate are added in squares (MOVER: Zou & Donner 2008).
    """
    ordered, count = np.sort(inside), len(inside)
    passed = outside <= ordered[math.ceil(share_inside * count - 1e-9) - 1]
    half = Z * math.sqrt(count * share_inside * (1 - share_inside))
    first, last = math.floor(share_inside * count - half), math.ceil(share_inside * count + half)
    lowest = float((outside <= ordered[first - 1]).mean()) if first >= 1 else 0.0
    highest = float((outside <= ordered[last - 1]).mean()) if last <= count else 1.0
    value, (low, high) = float(passed.mean()), wilson(passed.sum(), len(passed))
    return max(0.0, value - math.hypot(value - low, value - lowest)), min(
        1.0, value + math.hypot(high - value, highest - value)
    )


def weights(count: int, resamples: int = RESAMPLES, seed: int = SEED) -> Iterator[np.ndarray]:
    """Yield rows (R, N) that sum to N, ``resamples`` in all: how often each resample holds each image.

    A figure of all resamples is then one product of matrices (Efron & Tibshirani 1993, chapter 6).
    """
    rng = np.random.default_rng(seed)
    step = max(1, _CELLS // count)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        yield rng.multinomial(count, np.full(count, 1 / count), size=rows).astype(np.float64)


def _midranks(ordered: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return for each value the share of ordered ones below it, equal ones counting half."""
    counted = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    ranks: np.ndarray = counted / (2 * len(ordered))
    return ranks


def few_images(count: int) -> str | None:
    """Return a warning when figures of so few images decide little, else None."""
    if count >= FEW_IMAGES:
        return None
    return (
        f"**Only {count} images: the intervals are wide and differences of a few points mean nothing. "
        f"Collect at least {FEW_IMAGES}, better several hundred, before relying on these figures.**"
    )
