"""Metrics of a run: entries of the log -> accuracy, calibration, latency."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from monitoring.online.prediction_log import UNREADABLE, Entry
from training.evaluation.calibration import by_confidence, confidence_error, debiased_error
from training.evaluation.intervals import design_effect, share, wilson

PERCENTILES = (50, 90, 95, 99)
_DECIMALS = 6


@dataclass(frozen=True)
class Judged:
    """The answered images whose label the model has: confidence (N,) and whether the prediction was right (N,)."""

    confidence: np.ndarray
    right: np.ndarray


def judged(entries: Sequence[Entry]) -> Judged:
    """Return the images that count in the accuracy."""
    labelled = _labelled(entries)
    return Judged(
        np.array([entry.probability for entry in labelled], np.float64),
        np.array([entry.right for entry in labelled], bool),
    )


def summarise(entries: Sequence[Entry], groups: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return every metric of a run, as JSON can hold it; those that need answers are missing when there are none.

    Where ``groups`` says what every image comes from, by its digest, the intervals are those of other groups: the
    images of one are alike.
    """
    answered = [entry for entry in entries if entry.ok]
    counted = judged(entries)
    summary: dict[str, Any] = {
        "images": len(entries),
        "answered": len(answered),
        "rejected": dict(Counter(entry.code for entry in entries if entry.code not in (None, UNREADABLE))),
        "unreadable": sum(entry.code == UNREADABLE for entry in entries),
        "labels_unknown_to_the_model": sum(entry.label is None for entry in answered),
        "retried": sum(entry.attempts > 1 for entry in entries),
        "attempts": sum(entry.attempts for entry in entries),
    }
    if answered:
        summary |= {"latency_s": _latency(answered), "timings_s": _timings(answered)}
        summary |= {
            "novelty_mean": _rounded(np.mean([entry.novelty for entry in answered if entry.novelty is not None]))
        }
    if len(counted.right):
        accuracy = _accuracy(entries, counted, groups or {})
        summary |= accuracy | {"labels": by_label(entries), "confusions": _confusions(entries)}
    return summary


def by_version(entries: Sequence[Entry]) -> dict[tuple[str, str], list[Entry]]:
    """Return the answered images by (model, version), in the order of their first answers: accuracies do not mix."""
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        if entry.ok:
            groups.setdefault((entry.model or "", entry.version or ""), []).append(entry)
    return groups


def by_label(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return every label that was posted with its count and the share recognised, the worst first."""
    right: dict[str, list[bool]] = defaultdict(list)
    for entry in entries:
        if entry.ok and entry.label is not None:
            right[entry.label].append(entry.right)
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


def _labelled(entries: Sequence[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry.ok and entry.label is not None]


def _accuracy(entries: Sequence[Entry], counted: Judged, groups: Mapping[str, str]) -> dict[str, Any]:
    labelled = _labelled(entries)
    among = [any(entry.accepts(label) for label, _ in entry.best) for entry in labelled]
    sources = [groups.get(entry.image, "") for entry in labelled]
    whole = all(sources) and len(set(sources)) > 1
    alike = sources if whole else []
    effect = design_effect(counted.right - counted.confidence, alike)
    debiased, low, high = debiased_error(counted.confidence, counted.right, effect=effect)
    return {
        "judged": len(counted.right),
        "top1": _rounded(counted.right.mean()),
        "top1_interval": [_rounded(bound) for bound in share(counted.right, alike)],
        "groups": len(set(sources)) if whole else None,
        # As many independent images would say as much: those of a group are alike.
        "effective_images": _rounded(len(sources) / design_effect(counted.right.astype(np.float64), alike)),
        "top5": _rounded(np.mean(among)),
        "calibration_error": _rounded(confidence_error(by_confidence(counted.confidence, counted.right))),
        "calibration_error_debiased": _rounded(debiased),
        "calibration_error_debiased_interval": [_rounded(low), _rounded(high)],
        "mean_confidence": _rounded(counted.confidence.mean()),
    }


def _latency(answered: Sequence[Entry]) -> dict[str, float]:
    values = [entry.latency_s for entry in answered if entry.latency_s is not None]
    return {f"p{rank}": _rounded(np.percentile(values, rank)) for rank in PERCENTILES} | {"max": _rounded(max(values))}


def _timings(answered: Sequence[Entry]) -> dict[str, float]:
    """Return the median seconds of each stage in Server-Timing."""
    stages: dict[str, list[float]] = defaultdict(list)
    for entry in answered:
        for stage, seconds in (entry.timings or {}).items():
            stages[stage].append(seconds)
    return {stage: _rounded(np.median(seconds)) for stage, seconds in stages.items()}


def _confusions(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    pairs = Counter(
        (entry.label, entry.prediction) for entry in entries if entry.ok and entry.label is not None and not entry.right
    )
    ordered = sorted(pairs.items(), key=lambda pair: (-pair[1], str(pair[0])))
    return [{"label": label, "predicted": predicted, "count": count} for (label, predicted), count in ordered]


def _rounded(value: float | np.floating[Any]) -> float:
    return round(float(value), _DECIMALS)
