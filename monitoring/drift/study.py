"""The study: false-alarm rate and power of the check, on real images that changed and on images that did not.

held-out images, changed ones, other data sets -> samples -> many windows drawn from each -> share of windows that alarm

Windows are drawn with replacement, as if traffic had no end.
"""

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from monitoring.drift import sample as samples
from monitoring.drift.check import ALPHA, check
from monitoring.drift.reference import Reference
from monitoring.drift.sample import Sample, View
from training.evaluation.corruptions import MILD, SEVERITIES, corrupt
from visionserve.classifier import Classifier
from visionserve.files import read_regular
from visionserve.images import decode

SIZES = (50, 200, 1000)
_REFERENCES = 50  # drawn afresh; the false-alarm rate is an average over them


@dataclass(frozen=True)
class Row:
    """The result for one change: the share of windows that alarmed, and the feature that alarmed most.

    ``top1`` is the accuracy on the changed images where their labels are the model's; ``alarms`` and ``through`` go by
    window size.
    """

    change: str
    images: int
    top1: float | None
    alarms: dict[int, float]
    through: dict[int, str]


class Study:
    """Draws windows and counts alarms; the same seed gives the same windows.

    Args of the constructor:
        held_out: images like the reference's that it does not contain, and their label indices (N,).
    """

    def __init__(
        self,
        reference: Reference,
        held_out: Sample,
        targets: np.ndarray,
        windows: int,
        seed: int = 1,
        alpha: float = ALPHA,
    ) -> None:
        self._reference, self._held_out, self._targets = reference, held_out, targets
        self._windows, self._alpha = windows, alpha
        self._rng = np.random.default_rng(seed)

    def nothing_changed(self) -> Row:
        """Count false alarms when reference and window are drawn afresh from validation and held-out images together.

        The reference as it was divided: with the same number of images of each label where it is stratified.
        """
        pool = samples.join([self._reference.sample, self._held_out])
        drawn = [replace(self._reference, sample=self._draw_reference(pool)) for _ in range(_REFERENCES)]
        turn = itertools.count()
        return self._row(
            "nothing changed",
            len(pool),
            None,
            lambda size: (drawn[next(turn) % _REFERENCES], self._take(pool, size)),
        )

    def unchanged(self) -> Row:
        """Count alarms of held-out images against the reference as it is."""
        return self.changed("other images of the same kind (the test split)", self._held_out, targets=self._targets)

    def changed(self, change: str, sample: Sample, targets: np.ndarray | None = None) -> Row:
        """Count alarms of windows whose images have all changed."""
        top1 = None if targets is None else float((sample.label == targets).mean())
        return self._row(change, len(sample), top1, lambda size: (self._reference, self._take(sample, size)))

    def mixed(self, change: str, sample: Sample, share: float) -> Row:
        """Count alarms of windows of which ``share`` (0-1) are other images and the rest held-out ones."""

        def window(size: int) -> Sample:
            count = round(share * size)
            return samples.join([self._take(sample, count), self._take(self._held_out, size - count)])

        return self._row(change, len(sample), None, lambda size: (self._reference, window(size)))

    def label_mixes(self) -> Iterator[Row]:
        """Count alarms of held-out images of which one label is more frequent, or some labels are missing."""
        counts = np.bincount(self._targets, minlength=len(self._reference.labels))
        label = int(np.abs(counts / counts.sum() - 0.01).argmin())
        before = counts[label] / counts.sum()
        after = before + 0.05
        weights = np.where(self._targets == label, after / before, (1 - after) / (1 - before))
        yield self._weighted(f"one label {100 * before:.0f} % -> {100 * after:.0f} % of the images", weights)
        missing = self._rng.choice(len(counts), len(counts) // 10, replace=False)
        weights = np.where(np.isin(self._targets, missing), 0.0, 1.0)
        yield self._weighted(f"{len(missing)} of {len(counts)} labels no longer occur", weights)

    def _weighted(self, change: str, weights: np.ndarray) -> Row:
        probabilities = weights / weights.sum()

        def window(size: int) -> Sample:
            return self._held_out.take(self._rng.choice(len(weights), size, p=probabilities))

        return self._row(change, len(weights), None, lambda size: (self._reference, window(size)))

    def _row(
        self, change: str, images: int, top1: float | None, pair: Callable[[int], tuple[Reference, Sample]]
    ) -> Row:
        alarms: dict[int, float] = {}
        through: dict[int, str] = {}
        for size in SIZES:
            features: Counter[str] = Counter()
            alarmed = 0
            for _ in range(self._windows):
                drifted = [finding.feature for finding in check(*pair(size), self._alpha) if finding.alarm]
                features.update(drifted)
                alarmed += bool(drifted)
            alarms[size] = alarmed / self._windows
            through[size] = features.most_common(1)[0][0] if features else ""
        return Row(change, images, top1, alarms, through)

    def _take(self, sample: Sample, count: int) -> Sample:
        return sample.take(self._rng.integers(0, len(sample), count))

    def _draw_reference(self, pool: Sample) -> Sample:
        if not self._reference.stratified:
            return self._take(pool, len(self._reference.sample))
        rows = [
            self._rng.choice(np.flatnonzero(pool.label == label), count)
            for label, count in enumerate(self._reference.counts())
            if count
        ]
        return pool.take(np.concatenate(rows))


Change = Callable[[np.ndarray, int], np.ndarray]


def changes() -> Iterator[tuple[str, Change]]:
    """Yield (name, change) of every change that is studied: it takes a decoded image (H, W, 3) uint8 and a seed."""
    for kind in MILD:
        for severity in SEVERITIES:
            yield f"{kind} {severity}", functools.partial(_corrupted, kind, severity)
    yield "colour channels swapped (BGR)", lambda image, _: image[..., ::-1]
    yield "black and white", lambda image, _: np.asarray(Image.fromarray(image).convert("L").convert("RGB"))
    yield "turned by 90 degrees", lambda image, _: np.rot90(image)
    for side in (120, 60):
        yield f"scaled down to {side} pixels before the upload", functools.partial(_smaller, side)


def changed(classifier: Classifier, files: list[Path], change: Change) -> Sample:
    """Classify the changed images; the seed of each is its index."""

    def one(index: int) -> View:
        image = np.ascontiguousarray(change(decode(read_regular(files[index])), index))
        return View(classifier.preprocessing(image), min(image.shape[:2]))

    with ThreadPoolExecutor() as pool:
        return samples.of_views(classifier, pool.map(one, range(len(files))))


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    head = ["change", "images", "top-1", *(f"window {size}" for size in SIZES), "first by"]
    lines = [f"| {' | '.join(head)} |", "|---|---:|---:|" + "---:|" * len(SIZES) + "---|"]
    for row in rows:
        top1 = "" if row.top1 is None else f"{100 * row.top1:.1f} %"
        cells = [row.change, str(row.images), top1, *(_percent(row.alarms[size]) for size in SIZES)]
        lines.append(f"| {' | '.join([*cells, _first_feature(row)])} |")
    return "\n".join(lines)


def facts(rows: list[Row]) -> list[dict[str, Any]]:
    """Return the rows as JSON can hold them."""
    return [asdict(row) for row in rows]


def _corrupted(kind: str, severity: int, image: np.ndarray, seed: int) -> np.ndarray:
    return corrupt(image, kind, severity, seed, MILD)


def _smaller(shorter_side: int, image: np.ndarray, _: int) -> np.ndarray:
    height, width = image.shape[:2]
    factor = min(1.0, shorter_side / min(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _first_feature(row: Row) -> str:
    """Return the feature that alarmed most in the smallest window that alarms much more often than by chance."""
    size = next((size for size in SIZES if row.alarms[size] > 5 * ALPHA), None)
    return "" if size is None else row.through[size].replace("_", " ")
