"""The same images through the bundle in this process: the service must answer as the evaluated model does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monitoring.drift.properties import measure
from monitoring.drift.sample import DECIMALS, load_classifier, prepare
from monitoring.online.client import Properties
from monitoring.online.prediction_log import Entry
from visionserve.errors import ServiceError
from visionserve.files import read_regular

_SAME = 1e-3  # another processor or engine may round differently; users see percentages


@dataclass(frozen=True)
class Agreement:
    """Answers of the service and of this process to the same N images.

    ``same_probability`` counts those whose best label's probability differs by less than 0.001. Of the ``labelled``
    ones, ``offline_right`` were right here, ``only_offline_right`` and ``only_online_right`` on one side only. The
    files of ``unreadable`` further images were gone, or no longer images, when they were read again.
    """

    images: int
    same_label: int
    same_probability: int
    largest_difference: float
    labelled: int = 0
    offline_right: int = 0
    only_offline_right: int = 0
    only_online_right: int = 0
    unreadable: int = 0


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
        return {name: round(float(value), DECIMALS[name]) for name, value in vars(properties).items()}

    def compare(self, entries: Sequence[Entry], files: Mapping[str, Path]) -> Agreement:
        """Classify the answered images again; ``files`` by their digest in the log."""
        differences: list[float] = []
        same_label = unreadable = 0
        right: list[tuple[bool, bool]] = []
        for entry in entries:
            file = files.get(entry.image)
            if not entry.ok or file is None or entry.probability is None:
                continue
            try:
                answer = self._classifier.classify_file(read_regular(file))
            except (OSError, ServiceError):
                unreadable += 1
                continue
            best = answer.top(1)[0]
            same_label += best.label == entry.prediction
            differences.append(abs(best.probability - entry.probability) if best.label == entry.prediction else 1.0)
            if entry.label is not None:
                right.append((entry.accepts(best.label), entry.right))
        gaps = np.array(differences)
        return Agreement(
            images=len(gaps),
            same_label=same_label,
            same_probability=int((gaps < _SAME).sum()),
            largest_difference=float(gaps.max(initial=0)),
            labelled=len(right),
            offline_right=sum(offline for offline, _ in right),
            only_offline_right=sum(offline and not online for offline, online in right),
            only_online_right=sum(online and not offline for offline, online in right),
            unreadable=unreadable,
        )
