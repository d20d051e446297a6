"""The check: a window of answered photographs against the reference -> a finding for each feature, and one verdict.

False alarms are bounded for the window as a whole: Holm's step-down correction (1979, Scand. J. Statist. 6) keeps the
chance of any alarm below ``alpha`` when nothing has changed, however many features are looked at.
"""

from dataclasses import dataclass

import numpy as np

from monitoring.drift.reference import Reference
from monitoring.drift.sample import Sample
from monitoring.drift.statistics import largest_gap, more_often, stability_index, stability_p_value

ALPHA = 0.01
MIN_WINDOW = 30  # of fewer photographs nothing but the grossest change can be told from chance
LABEL_MIX = "label_mix"
STRANGERS = "strangers"
# A photograph is a stranger when it is less like its label than 95 % of the validation photographs: novelty, which is
# that percentile, says so itself. A few strangers hardly move the distribution of novelty as a whole.
STRANGE = 0.95


@dataclass(frozen=True)
class Finding:
    """One feature of one window.

    ``statistic`` is the Kolmogorov-Smirnov gap, 0-1; of strangers their share; of the label mix the PSI. ``usual`` and
    ``now`` are the means of reference and window; for the label mix the share of the window's most frequent label.
    """

    feature: str
    statistic: float
    p_value: float
    usual: float
    now: float
    alarm: bool


def check(reference: Reference, window: Sample, alpha: float = ALPHA) -> list[Finding]:
    """Compare a window with the reference; the features in a fixed order, those unknown in the window left out."""
    found = [_ordered(reference.sample, window, name) for name in window.known() if name in reference.sample.known()]
    found += [_strangers(reference.sample, window), _label_mix(reference, window)]
    alarms = _holm(np.array([entry.p_value for entry in found]), alpha)
    return [
        Finding(entry.feature, entry.statistic, entry.p_value, entry.usual, entry.now, bool(alarm))
        for entry, alarm in zip(found, alarms, strict=True)
    ]


def _ordered(reference: Sample, window: Sample, name: str) -> Finding:
    usual, now = reference.features[name], window.features[name]
    gap, p_value = largest_gap(usual, now)
    return Finding(name, gap, p_value, float(usual.mean()), float(now.mean()), alarm=False)


def _strangers(reference: Sample, window: Sample) -> Finding:
    usual, now = reference.features["novelty"] >= STRANGE, window.features["novelty"] >= STRANGE
    share, p_value = more_often(usual, now)
    return Finding(STRANGERS, share, p_value, float(usual.mean()), share, alarm=False)


def _label_mix(reference: Reference, window: Sample) -> Finding:
    usual, now = reference.counts(), np.bincount(window.label, minlength=len(reference.labels))
    most = int(now.argmax())
    return Finding(
        LABEL_MIX,
        stability_index(usual, now),
        stability_p_value(usual, now),
        float(usual[most] / usual.sum()),
        float(now[most] / now.sum()),
        alarm=False,
    )


def _holm(p_values: np.ndarray, alpha: float) -> np.ndarray:
    """Return which of (F,) hypotheses are refused when all errors together may have a chance of ``alpha``."""
    order = np.argsort(p_values, kind="stable")
    allowed = alpha / np.arange(len(p_values), 0, -1)
    passed = p_values[order] <= allowed
    refused = np.zeros(len(p_values), bool)
    refused[order[: len(passed) if passed.all() else int(passed.argmin())]] = True
    return refused
