"""Is the accuracy of the running service below the model card's? One-sided tests, their rates held by simulation.

two proportions   the posted images and the card's are different ones: Fisher's exact test, mid-p
pairs             the same images, answered by the service and by the bundle in this process: McNemar's test, mid-p

The mid-p variants keep the false-alarm rate at ``alpha`` without the loss of power of the exact ones (Lancaster 1961;
Fagerland, Lydersen & Laake 2013). That two 95 % intervals overlap says much less: it is a test at about 0.5 %.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binom, hypergeom

from monitoring.online.offline import Agreement

ALPHA = 0.05  # probability of "below" in one run when the accuracy is the card's
POWER = 0.8
_DECIMALS = 6


def against_card(
    summary: Mapping[str, Any], card: Mapping[str, Any], agreement: Agreement | None, alpha: float = ALPHA
) -> dict[str, Any] | None:
    """Compare the accuracy of a run with the one on its model's card; None when either is missing.

    Args:
        summary: the metrics of the answers of that model and version.
        card: the metrics on the card.
        agreement: the same images in this process, if they were classified: then image by image.
    """
    if "top1" not in summary or "top1" not in card:
        return None
    count = round(summary.get("effective_images", summary["judged"]))  # fewer, where images come in groups
    right = round(summary["top1"] * count)
    offline_count = card.get("photographs")
    comparison = {
        "offline_top1": card["top1"],
        "offline_interval": card.get("top1_interval"),
        "offline_images": offline_count,
        "alpha": alpha,
    }
    if agreement is not None and agreement.labelled:
        p_value = paired_p_value(agreement.only_offline_right, agreement.only_online_right)
        comparison |= {"test": "pairs", "offline_top1": round(agreement.offline_right / agreement.labelled, _DECIMALS)}
        comparison |= {"offline_images": agreement.labelled, "offline_interval": None, "detectable_loss": None}
    elif offline_count:
        offline_right = round(card["top1"] * offline_count)
        p_value = proportions_p_value(offline_right, offline_count, right, count)
        comparison |= {"test": "two proportions"}
        comparison |= {"detectable_loss": detectable_loss(offline_right, offline_count, count, alpha)}
    else:
        return None
    return comparison | {"p_value": round(p_value, _DECIMALS), "below": p_value <= alpha}


def proportions_p_value(offline_right: int, offline_count: int, right: int, count: int) -> float:
    """Return the mid-p value of so few right answers when the service is as accurate as the card says."""
    return float(_proportions(offline_right, offline_count, np.array(right), count))


def paired_p_value(only_offline_right: int, only_online_right: int) -> float:
    """Return the mid-p value of McNemar's test; 1 when the two agree on every image."""
    discordant = only_offline_right + only_online_right
    if discordant == 0:
        return 1.0
    law = (discordant, 0.5)
    return float(binom.sf(only_offline_right - 1, *law) - 0.5 * binom.pmf(only_offline_right, *law))


def detectable_loss(offline_right: int, offline_count: int, count: int, alpha: float = ALPHA) -> float | None:
    """Return the loss of accuracy (0-1) that so many images show in 80 % of the runs; None when none would."""
    reported = np.flatnonzero(_proportions(offline_right, offline_count, np.arange(count + 1), count) <= alpha)
    if not len(reported):
        return None
    most = int(reported.max())
    accuracy = offline_right / offline_count

    def missing(loss: float) -> float:
        return float(binom.cdf(most, count, accuracy - loss)) - POWER

    if missing(accuracy) < 0 or missing(0.0) > 0:
        return None
    return round(float(brentq(missing, 0.0, accuracy)), 4)


def _proportions(offline_right: int, offline_count: int, right: np.ndarray, count: int) -> np.ndarray:
    law = (right, offline_count + count, offline_right + right, count)
    p_values: np.ndarray = hypergeom.cdf(*law) - 0.5 * hypergeom.pmf(*law)
    return p_values
