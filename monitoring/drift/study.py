"""The study: how often the check alarms, on images that changed and on images that did not.

held-out images, corrupted ones, other data sets -> samples -> many windows drawn from each -> share that alarmed
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from monitoring.drift import sample as samples
from monitoring.drift.check import ALPHA, check
from monitoring.drift.corruptions import CORRUPTIONS, SEVERITIES
from monitoring.drift.reference import Reference
from monitoring.drift.sample import Sample, View
from visionserve.classifier import Classifier
from visionserve.images import decode

SIZES = (50, 200, 1000)
_REFERENCES = 50  # drawn afresh to measure false alarms: the false-alarm rate is an average over them


@dataclass(frozen=True)
class Row:
    """The result for one kind of images: the share of windows that alarmed, and through which feature most.

    ``top1`` is the accuracy on the kind where its labels are the model's; ``alarms`` and ``through`` go by window size.
    """

    kind: str
    images: int
    top1: float | None
    alarms: dict[int, float]
    through: dict[int, str]


class Study:
    """Draws windows and counts alarms; the same seed gives the same windows."""

    def __init__(self, reference: Reference, windows: int, seed: int = 1, alpha: float = ALPHA) -> None:
        self._reference, self._windows, self._alpha = reference, windows, alpha
        self._rng = np.random.default_rng(seed)

    def nothing_changed(self, held_out: Sample) -> Row:
        """Count false alarms when reference and window are drawn afresh from validation and held-out images.

        Both are drawn with replacement from all of them together, so nothing has changed and only chance can alarm.
        This is the rate that the check promises.
        """
        pool = samples.join([self._reference.sample, held_out])

        def draw(count: int) -> Sample:
            return pool.take(self._choice(len(pool), count, replace=True))

        count, turn = len(self._reference.sample), itertools.count()
        drawn = [replace(self._reference, sample=draw(count)) for _ in range(_REFERENCES)]

        def pair(size: int) -> tuple[Reference, Sample]:
            return drawn[next(turn) % _REFERENCES], draw(size)

        return self._row("nothing changed", len(pool), None, pair)

    def row(self, kind: str, changed: Sample, usual: Sample | None = None, share: float = 1.0, **facts: Any) -> Row:
        """Count alarms of windows of which ``share`` (0-1] shows ``changed`` and the rest ``usual`` images.

        A window larger than what there is to draw from is drawn with replacement, others without.
        """

        def pair(size: int) -> tuple[Reference, Sample]:
            count = round(share * size)
            parts = [changed.take(self._draw(len(changed), count))]
            if usual is not None and count < size:
                parts.append(usual.take(self._draw(len(usual), size - count)))
            return self._reference, samples.join(parts)

        return self._row(kind, len(changed), facts.get("top1"), pair)

    def _row(self, kind: str, images: int, top1: float | None, pair: Any) -> Row:
        alarms: dict[int, float] = {}
        through: dict[int, str] = {}
        for size in SIZES:
            counts: Counter[str] = Counter()
            alarmed = 0
            for _ in range(self._windows):
                reference, window = pair(size)
                drifted = [finding.feature for finding in check(reference, window, self._alpha) if finding.alarm]
                counts.update(drifted)
                alarmed += bool(drifted)
            alarms[size] = alarmed / self._windows
            through[size] = counts.most_common(1)[0][0] if counts else ""
        return Row(kind, images, top1, alarms, through)

    def _draw(self, population: int, count: int) -> np.ndarray:
        return self._choice(population, count, replace=count > population)

    def _choice(self, population: int, count: int, *, replace: bool) -> np.ndarray:
        return self._rng.choice(population, count, replace=replace)


def corrupted(
    classifier: Classifier, files: list[Path], severities: Sequence[int] = SEVERITIES
) -> Iterator[tuple[str, int, Sample]]:
    """Yield (kind, severity, sample) of the files under every corruption."""
    for kind in CORRUPTIONS:
        for severity in severities:
            yield kind, severity, _corrupted(classifier, files, kind, severity)


def _corrupted(classifier: Classifier, files: list[Path], kind: str, severity: int) -> Sample:
    def one(index: int) -> View:
        image = CORRUPTIONS[kind](decode(files[index].read_bytes()), severity, index)
        return View(classifier.preprocessing(image), min(image.shape[:2]))

    with ThreadPoolExecutor() as pool:
        return samples.of_views(classifier, pool.map(one, range(len(files))))


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    head = ["images", "of", "top-1", *(f"window {size}" for size in SIZES), "mostly by"]
    lines = [f"| {' | '.join(head)} |", "|---|---:|---:|" + "---:|" * len(SIZES) + "---|"]
    for row in rows:
        top1 = "" if row.top1 is None else f"{100 * row.top1:.1f} %"
        cells = [row.kind, str(row.images), top1, *(_percent(row.alarms[size]) for size in SIZES)]
        lines.append(f"| {' | '.join([*cells, _first_feature(row)])} |")
    return "\n".join(lines)


def facts(rows: list[Row]) -> list[dict[str, Any]]:
    """Return the rows as JSON can hold them."""
    return [asdict(row) for row in rows]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if 0 < share < 0.1 else f"{100 * share:.0f} %"


def _first_feature(row: Row) -> str:
    """Name the feature that alarmed most where alarms are more than chance."""
    size = max((size for size in SIZES if row.alarms[size] > 5 * ALPHA), default=None, key=lambda size: -size)
    return "" if size is None else row.through[size].replace("_", " ")
