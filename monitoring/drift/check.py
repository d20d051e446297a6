"""The check: a window of answered images against the reference -> a finding for each feature, and an alarm or none.

False alarms are bounded for the window as a whole: Holm's step-down correction (1979, Scand. J. Statist. 6) keeps the
probability of any alarm below ``alpha`` when nothing has changed, however many features are tested.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from monitoring.drift.reference import Reference
from monitoring.drift.sample import FEATURES, Sample
from monitoring.drift.statistics import g_test, g_test_two_samples, ks_test, proportion_test, psi

ALPHA = 0.01
MIN_WINDOW = 30  # fewer images show nothing but the grossest change
LABEL_MIX = "label_mix"
OOD_SHARE = "ood_share"
# An image counts as out of distribution when it is less like its label than 95 % of the validation images: novelty is
# that percentile. A few such images hardly move the distribution of novelty as a whole.
OOD = 0.95


@dataclass(frozen=True)
class Finding:
    """One feature of one window.

    ``count`` images were compared, those where the feature was measured. ``statistic`` is the Kolmogorov-Smirnov gap,
    0-1; of ood_share the share; of the label mix the PSI. ``expected`` and ``observed`` are the means of reference and
    window; for the label mix the share of the window's most frequent label.
    """

    feature: str
    count: int
    statistic: float
    p_value: float
    expected: float
    observed: float
    alarm: bool = False


def check(reference: Reference, window: Sample, alpha: float = ALPHA) -> list[Finding]:
    """Compare a window with the reference; the features in a fixed order, without the `untested` ones."""
    skipped = untested(window)
    findings = [_ordered(reference.sample, window, name) for name in FEATURES if name not in skipped]
    if "novelty" not in skipped:
        findings.append(_ood_share(reference.sample, window))
    findings.append(_label_mix(reference, window))
    alarms = _holm(np.array([finding.p_value for finding in findings]), alpha)
    return [replace(finding, alarm=bool(alarm)) for finding, alarm in zip(findings, alarms, strict=True)]


def untested(window: Sample) -> dict[str, int]:
    """Return the features that too few images have for a test, each with how many have it."""
    counts = {name: len(window.measured(name)) for name in FEATURES}
    return {name: count for name, count in counts.items() if count < MIN_WINDOW}


def no_drift(findings: Sequence[Finding]) -> bool:
    """Return whether no feature of a window alarms."""
    return not any(finding.alarm for finding in findings)


def _ordered(reference: Sample, window: Sample, name: str) -> Finding:
    expected, observed = reference.measured(name), window.measured(name)
    gap, p_value = ks_test(expected, observed)
    return Finding(name, len(observed), gap, p_value, float(expected.mean()), float(observed.mean()))


def _ood_share(reference: Sample, window: Sample) -> Finding:
    expected, observed = reference.measured("novelty") >= OOD, window.measured("novelty") >= OOD
    share, p_value = proportion_test(expected, observed)
    return Finding(OOD_SHARE, len(observed), share, p_value, float(expected.mean()), share)


def _label_mix(reference: Reference, window: Sample) -> Finding:
    expected, observed = reference.counts(), np.bincount(window.label, minlength=len(reference.labels))
    most = int(observed.argmax())
    test = g_test if reference.stratified and _is_exact(expected, len(window)) else g_test_two_samples
    return Finding(
        LABEL_MIX,
        len(window),
        psi(expected, observed),
        test(expected, observed),
        float(expected[most] / expected.sum()),
        float(observed[most] / observed.sum()),
    )


def _is_exact(counts: np.ndarray, size: int) -> bool:
    """Return whether a stratified split's counts (C,), which are rounded, are exact enough for a window of a size.

    Rounding shifts G by size / M * sum(1 / (12 n)) on average; a quarter of its standard deviation is allowed.
    """
    shift = size / counts.sum() * (1 / (12 * np.maximum(counts, 1))).sum()
    return bool(shift <= 0.25 * np.sqrt(2 * (len(counts) - 1)))


def _holm(p_values: np.ndarray, alpha: float) -> np.ndarray:
    """Return which of (F,) hypotheses are rejected when the probability of any error is bounded by ``alpha``."""
    order = np.argsort(p_values, kind="stable")
    allowed = alpha / np.arange(len(p_values), 0, -1)
    passed = p_values[order] <= allowed
    rejected = np.zeros(len(p_values), bool)
    rejected[order[: len(passed) if passed.all() else int(passed.argmin())]] = True
    return rejected
