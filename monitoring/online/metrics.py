"""Figures of a run: lines of the log -> accuracy, calibration, latency, and what the offline evaluation promised."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from monitoring.online.prediction_log import UNREADABLE, Photograph
from training.evaluation.calibration import by_confidence, confidence_error
from training.evaluation.metrics import wilson

PERCENTILES = (50, 90, 95, 99)
_DECIMALS = 6


@dataclass(frozen=True)
class Judged:
    """The answered photographs whose label the model has: confidence (N,) and whether it was right (N,)."""

    confidence: np.ndarray
    right: np.ndarray


def judged(entries: Sequence[Photograph]) -> Judged:
    """Return the photographs that can be right or wrong."""
    chosen = [entry for entry in entries if entry.ok and entry.label is not None]
    return Judged(
        np.array([entry.probability for entry in chosen], np.float64),
        np.array([entry.prediction == entry.label for entry in chosen], bool),
    )


def summarise(entries: Sequence[Photograph]) -> dict[str, Any]:
    """Return every figure of a run, as JSON can hold it; those that need answers are missing when there are none."""
    answered = [entry for entry in entries if entry.ok]
    found = judged(entries)
    summary: dict[str, Any] = {
        "photographs": len(entries),
        "answered": len(answered),
        "refused": dict(Counter(entry.code for entry in entries if entry.code not in (None, UNREADABLE))),
        "unreadable": sum(entry.code == UNREADABLE for entry in entries),
        "labels_unknown_to_the_model": sum(entry.label is None for entry in answered),
        "models": sorted({f"{entry.model} {entry.version}" for entry in answered}),
    }
    if answered:
        summary |= {"latency_s": _latency(answered), "timings_s": _timings(answered)}
        summary |= {
            "novelty_mean": _rounded(np.mean([entry.novelty for entry in answered if entry.novelty is not None]))
        }
    if len(found.right):
        summary |= _accuracy(entries, found) | {"labels": by_label(entries), "confusions": _confusions(entries)}
    return summary


def by_label(entries: Sequence[Photograph]) -> list[dict[str, Any]]:
    """Return every label that was posted with its count and the share recognised, the worst first."""
    right: dict[str, list[bool]] = defaultdict(list)
    for entry in entries:
        if entry.ok and entry.label is not None:
            right[entry.label].append(entry.prediction == entry.label)
    rows = [
        {
            "label": label,
            "count": len(hits),
            "right": sum(hits),
            "accuracy": _rounded(sum(hits) / len(hits)),
            "interval": [_rounded(bound) for bound in wilson(sum(hits), len(hits))],
        }
        for label, hits in right.items()
    ]
    return sorted(rows, key=lambda row: (row["accuracy"], -row["count"], row["label"]))


def against_offline(summary: Mapping[str, Any], card: Mapping[str, Any]) -> dict[str, Any] | None:
    """Compare the accuracy with the one of the model's card; None when either is missing.

    The two are from different photographs, so each has its own interval; they agree when the intervals overlap.
    """
    promised = card.get("metrics", {})
    if "top1" not in summary or "top1" not in promised:
        return None
    low, high = summary["top1_interval"]
    offline_low, offline_high = promised.get("top1_interval", (promised["top1"], promised["top1"]))
    return {
        "offline_top1": promised["top1"],
        "offline_interval": [offline_low, offline_high],
        "offline_photographs": promised.get("photographs"),
        "inside_live_interval": bool(low <= promised["top1"] <= high),
        "intervals_overlap": bool(low <= offline_high and offline_low <= high),
        "below": bool(high < offline_low),
    }


def _accuracy(entries: Sequence[Photograph], found: Judged) -> dict[str, Any]:
    chosen = [entry for entry in entries if entry.ok and entry.label is not None]
    among = [entry.label in {label for label, _ in entry.best} for entry in chosen]
    return {
        "judged": len(found.right),
        "top1": _rounded(found.right.mean()),
        "top1_interval": [_rounded(bound) for bound in wilson(int(found.right.sum()), len(found.right))],
        "top5": _rounded(np.mean(among)),
        "calibration_error": _rounded(confidence_error(by_confidence(found.confidence, found.right))),
        "mean_confidence": _rounded(found.confidence.mean()),
    }


def _latency(answered: Sequence[Photograph]) -> dict[str, float]:
    values = [entry.latency_s for entry in answered if entry.latency_s is not None]
    return {f"p{rank}": _rounded(np.percentile(values, rank)) for rank in PERCENTILES} | {"max": _rounded(max(values))}


def _timings(answered: Sequence[Photograph]) -> dict[str, float]:
    """Return the median seconds of each stage that the service states."""
    stages: dict[str, list[float]] = defaultdict(list)
    for entry in answered:
        for stage, seconds in (entry.timings or {}).items():
            stages[stage].append(seconds)
    return {stage: _rounded(np.median(seconds)) for stage, seconds in stages.items()}


def _confusions(entries: Sequence[Photograph]) -> list[dict[str, Any]]:
    pairs = Counter(
        (entry.label, entry.prediction) for entry in entries if entry.ok and entry.label not in (None, entry.prediction)
    )
    ordered = sorted(pairs.items(), key=lambda pair: (-pair[1], str(pair[0])))
    return [{"label": label, "predicted": predicted, "count": count} for (label, predicted), count in ordered]


def _rounded(value: float | np.floating[Any]) -> float:
    return round(float(value), _DECIMALS)
