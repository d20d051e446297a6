"""Paired: two models' answers about the same photographs, the one that is served and the one it was made from."""

from typing import Any

import numpy as np
from scipy.stats import binomtest

from training.evaluation.bootstrap import mean_interval
from training.evaluation.calibration import log_losses, probabilities
from training.evaluation.metrics import rounded


def compare(one: np.ndarray, other: np.ndarray, targets: np.ndarray, temperature: float) -> dict[str, Any]:
    """Return how the logits ``one`` (N, C) differ from ``other`` (N, C) about photographs with label indices (N,).

    Differences are one minus other, with 95 % intervals of a paired bootstrap. ``mcnemar_p`` is the exact two-sided
    probability of so uneven a split of the photographs that only one of the two got right, if both were equally good.
    """
    first, second = one.argmax(1) == targets, other.argmax(1) == targets
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    accuracy = first.astype(float) - second
    likelihood = log_losses(probabilities(one, temperature), targets) - log_losses(
        probabilities(other, temperature), targets
    )
    return {
        "agreement": rounded((one.argmax(1) == other.argmax(1)).mean()),
        "disagreements": int((one.argmax(1) != other.argmax(1)).sum()),
        "right_only_as_served": only_first,
        "right_only_in_fp32": only_second,
        "mcnemar_p": mcnemar(only_first, only_second),
        "top1_difference": rounded(accuracy.mean()),
        "top1_difference_interval": mean_interval(accuracy),
        "negative_log_likelihood_difference": rounded(likelihood.mean()),
        "negative_log_likelihood_difference_interval": mean_interval(likelihood),
    }


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p of McNemar's test (1947) from the two counts of discordant pairs."""
    discordant = only_first + only_second
    return rounded(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0
