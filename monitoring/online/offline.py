"""The same images through the bundle in this process: the service must answer as the evaluated model does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monitoring.drift.properties import measure
from monitoring.drift.sample import load_classifier, prepare
from monitoring.online.client import Properties
from monitoring.online.prediction_log import Entry
from visionserve.errors import ServiceError

_SAME = 1e-3  # another processor or engine may round differently; users see percentages


@dataclass(frozen=True)
class Agreement:
    """Answers of the service and of this process to the same N images.

    ``same_probability`` counts those whose best label's probability differs by less than 0.001.
    """

    images: int
    same_label: int
    same_probability: int
    largest_difference: float


class Offline:
    """A bundle in this process."""

    def __init__(self, bundle: Path) -> None:
        self._classifier = load_classifier(bundle)

    def properties(self, image_bytes: bytes) -> Properties | None:
        """Return the properties of an image file, or None when the service would reject it."""
        try:
            view = prepare(self._classifier, image_bytes)
        except ServiceError:
            return None
        properties = measure(view.prepared, view.shorter_side, self._classifier.card.input.crop)
        return {name: round(float(value), 4) for name, value in vars(properties).items()}

    def compare(self, entries: Sequence[Entry], files: Mapping[str, Path]) -> Agreement:
        """Classify the answered images again; ``files`` by their digest in the log."""
        differences: list[float] = []
        same_label = 0
        for entry in entries:
            file = files.get(entry.image)
            if not entry.ok or file is None or entry.probability is None:
                continue
            best = self._classifier.classify(self._classifier.prepare(file.read_bytes())[None])[0].top(1)[0]
            same_label += best.label == entry.prediction
            differences.append(abs(best.probability - entry.probability) if best.label == entry.prediction else 1.0)
        gaps = np.array(differences)
        return Agreement(len(gaps), same_label, int((gaps < _SAME).sum()), float(gaps.max(initial=0)))
