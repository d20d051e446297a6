"""The model's card as the page shows it. A value that the card does not have is None: other models have other cards."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from visionserve.client import Model

_Z95 = 1.96  # two-sided 95 % of the normal distribution


@dataclass(frozen=True)
class Bin:
    """Images about which the model was equally sure: how many, how sure, and how often it was right, 0-1."""

    count: int
    confidence: float
    accuracy: float

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy (Wilson 1927), wide for few images."""
        spread = _Z95**2 / self.count
        centre = (self.accuracy + spread / 2) / (1 + spread)
        half = math.sqrt(spread * (self.accuracy * (1 - self.accuracy) + spread / 4)) / (1 + spread)
        return max(centre - half, 0.0), min(centre + half, 1.0)


@dataclass(frozen=True)
class Card:
    """What the page needs of a card.

    ``crop`` is the side of the model's view over the image's shorter side, ``reference`` the number of validation
    images that a novelty is a rank among, ``part_accuracy`` the share of test images whose part was named right.
    """

    labels: tuple[str, ...]
    crop: float
    images: int | None
    top1: float | None
    top1_interval: tuple[float, float] | None
    top5: float | None
    calibration_error: float | None
    reliability: tuple[Bin, ...]
    facts: Mapping[str, str]
    reference: int | None = None
    part_accuracy: float | None = None


# Entries of the card that are worth a line each, and what the line is called.
_FACTS = (
    ("licence", "Licence"),
    ("trained_on", "Trained on"),
    ("initialised_from", "Started from"),
    ("date", "Trained"),
)


def read(model: Model) -> Card:
    """Read the card of a model that was asked for by name."""
    content = model.card or {}
    metrics, origin = _mapping(content, "metrics"), _mapping(content, "provenance")
    interval = metrics.get("top1_interval")
    return Card(
        labels=tuple(str(label) for label in content.get("labels", ())),
        crop=float(_mapping(content, "input").get("crop", 1.0)),
        images=metrics.get("photographs"),
        top1=metrics.get("top1"),
        top1_interval=(float(interval[0]), float(interval[1])) if interval else None,
        top5=metrics.get("top5"),
        calibration_error=metrics.get("calibration_error"),
        reliability=tuple(Bin(int(n), float(sure), float(right)) for n, sure, right in metrics.get("reliability", ())),
        facts={title: str(origin[key]) for key, title in _FACTS if key in origin}
        | {"Network": str(content.get("architecture", "not stated"))},
        reference=_mapping(origin, "photographs").get("val"),
        part_accuracy=_mapping(content, "parts").get("accuracy"),
    )


def _mapping(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = content.get(key, {})
    return value if isinstance(value, Mapping) else {}
