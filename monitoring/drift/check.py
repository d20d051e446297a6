"""The check: a window of answered images against the reference -> a finding for each feature, and an alarm or none.

False alarms are bounded for the window as a whole: Holm's step-down correction (1979, Scand. J. Statist. 6) keeps the
probability of any alarm below ``alpha`` when nothing has changed, however many features are tested.
"""

from dataclasses import dataclass

import numpy as np

from monitoring.drift.reference import Reference
from monitoring.drift.sample import Sample
from monitoring.drift.statistics import ks_test, proportion_test, psi, psi_p_value

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

    ``statistic`` is the Kolmogorov-Smirnov gap, 0-1; of ood_share the share; of the label mix the PSI. ``expected`` and
    ``observed`` are the means of reference and window; for the label mix the share of the window's most frequent label.
    """

    feature: str
    statistic: float
    p_value: float
    expected: float
    observed: float
    alarm: bool


def check(reference: Reference, window: Sample, alpha: float = ALPHA) -> list[Finding]:
    """Compare a window with the reference; the features in a fixed order, those unknown in the window left out."""
    findings = [_ordered(reference.sample, window, name) for name in window.known() if name in reference.sample.known()]
    findings += [_ood_share(reference.sample, window), _label_mix(reference, window)]
    alarms = _holm(np.array([entry.p_value for entry in findings]), alpha)
    return [
        Finding(entry.feature, entry.statistic, entry.p_value, entry.expected, entry.observed, bool(alarm))
        for entry, alarm in zip(findings, alarms, strict=True)
    ]


def no_drift(findings: list[Finding]) -> bool:
    """Return whether no feature of a window alarms."""
    return not any(finding.alarm for finding in findings)


def _ordered(reference: Sample, window: Sample, name: str) -> Finding:
    expected, observed = reference.features[name], window.features[name]
    gap, p_value = ks_test(expected, observed)
    return Finding(name, gap, p_value, float(expected.mean()), float(observed.mean()), alarm=False)


def _ood_share(reference: Sample, window: Sample) -> Finding:
    expected, observed = reference.features["novelty"] >= OOD, window.features["novelty"] >= OOD
    share, p_value = proportion_test(expected, observed)
    return Finding(OOD_SHARE, share, p_value, float(expected.mean()), share, alarm=False)


def _label_mix(reference: Reference, window: Sample) -> Finding:
    expected, observed = reference.counts(), np.bincount(window.label, minlength=len(reference.labels))
    most = int(observed.argmax())
    return Finding(
        LABEL_MIX,
        psi(expected, observed),
        psi_p_value(expected, observed),
        float(expected[most] / expected.sum()),
        float(observed[most] / observed.sum()),
        alarm=False,
    )


def _holm(p_values: np.ndarray, alpha: float) -> np.ndarray:
    """Return which of (F,) hypotheses are rejected when the probability of any error is bounded by ``alpha``."""
    order = np.argsort(p_values, kind="stable")
    allowed = alpha / np.arange(len(p_values), 0, -1)
    passed = p_values[order] <= allowed
    rejected = np.zeros(len(p_values), bool)
    rejected[order[: len(passed) if passed.all() else int(passed.argmin())]] = True
    return rejected
