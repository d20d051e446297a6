"""The study: how often the check alarms, on photographs that changed and on photographs that did not.

held-out photographs, corrupted ones, other data sets -> samples -> many windows drawn from each -> share that alarmed
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
from visionserve.errors import BundleError
from visionserve.files import is_image
from visionserve.images import decode

SIZES = (50, 200, 1000)
_REFERENCES = 50  # drawn afresh to measure false alarms: each is a draw of luck too


@dataclass(frozen=True)
class Row:
    """What was seen of one kind of photographs: the share of windows that alarmed, and through which feature most.

    ``top1`` is the accuracy on the kind where its labels are the model's; ``alarms`` and ``through`` go by window size.
    """

    kind: str
    photographs: int
    top1: float | None
    alarms: dict[int, float]
    through: dict[int, str]


class Study:
    """Draws windows and counts alarms; the same seed gives the same windows."""

    def __init__(self, reference: Reference, windows: int, seed: int = 1, alpha: float = ALPHA) -> None:
        self._reference, self._windows, self._alpha = reference, windows, alpha
        self._source = np.random.default_rng(seed)

    def quiet(self, held_out: Sample) -> Row:
        """Count false alarms when reference and window are drawn afresh from validation and held-out photographs.

        Both are drawn with replacement from all of them together, so nothing has changed and only chance can alarm.
        This is the rate that the check promises.
        """
        everything = samples.join([self._reference.sample, held_out])

        def draw(count: int) -> Sample:
            return everything.take(self._places(len(everything), count, replace=True))

        count, turns = len(self._reference.sample), itertools.count()
        drawn = [replace(self._reference, sample=draw(count)) for _ in range(_REFERENCES)]

        def pair(size: int) -> tuple[Reference, Sample]:
            return drawn[next(turns) % _REFERENCES], draw(size)

        return self._row("nothing changed", len(everything), None, pair)

    def row(self, kind: str, changed: Sample, usual: Sample | None = None, share: float = 1.0, **facts: Any) -> Row:
        """Count alarms of windows of which ``share`` (0-1] shows ``changed`` and the rest ``usual`` photographs.

        A window larger than what there is to draw from is drawn with replacement, others without.
        """

        def pair(size: int) -> tuple[Reference, Sample]:
            count = round(share * size)
            parts = [changed.take(self._draw(len(changed), count))]
            if usual is not None and count < size:
                parts.append(usual.take(self._draw(len(usual), size - count)))
            return self._reference, samples.join(parts)

        return self._row(kind, len(changed), facts.get("top1"), pair)

    def _row(self, kind: str, photographs: int, top1: float | None, pair: Any) -> Row:
        alarms: dict[int, float] = {}
        through: dict[int, str] = {}
        for size in SIZES:
            seen: Counter[str] = Counter()
            alarmed = 0
            for _ in range(self._windows):
                reference, window = pair(size)
                loud = [finding.feature for finding in check(reference, window, self._alpha) if finding.alarm]
                seen.update(loud)
                alarmed += bool(loud)
            alarms[size] = alarmed / self._windows
            through[size] = seen.most_common(1)[0][0] if seen else ""
        return Row(kind, photographs, top1, alarms, through)

    def _draw(self, population: int, count: int) -> np.ndarray:
        return self._places(population, count, replace=count > population)

    def _places(self, population: int, count: int, *, replace: bool) -> np.ndarray:
        return self._source.choice(population, count, replace=replace)


def corrupted(
    classifier: Classifier, files: list[Path], severities: Sequence[int] = SEVERITIES
) -> Iterator[tuple[str, int, Sample]]:
    """Yield (kind, severity, sample) of the files under every corruption."""
    for kind in CORRUPTIONS:
        for severity in severities:
            yield kind, severity, _corrupted(classifier, files, kind, severity)


def _corrupted(classifier: Classifier, files: list[Path], kind: str, severity: int) -> Sample:
    def one(place: int) -> View:
        image = CORRUPTIONS[kind](decode(files[place].read_bytes()), severity, place)
        return View(classifier.preprocessing(image), min(image.shape[:2]))

    with ThreadPoolExecutor() as pool:
        return samples.of_views(classifier, pool.map(one, range(len(files))))


def photographs_below(folder: Path) -> list[Path]:
    """Return the photographs below a folder, sorted; BundleError when there is none."""
    found = sorted(path for path in folder.rglob("*") if is_image(path))
    if not found:
        raise BundleError(f"{folder} holds no photographs")
    return found


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    head = ["photographs", "of", "top-1", *(f"window {size}" for size in SIZES), "mostly by"]
    lines = [f"| {' | '.join(head)} |", "|---|---:|---:|" + "---:|" * len(SIZES) + "---|"]
    for row in rows:
        top1 = "" if row.top1 is None else f"{100 * row.top1:.1f} %"
        cells = [row.kind, str(row.photographs), top1, *(_percent(row.alarms[size]) for size in SIZES)]
        lines.append(f"| {' | '.join([*cells, _spoken(row)])} |")
    return "\n".join(lines)


def facts(rows: list[Row]) -> list[dict[str, Any]]:
    """Return the rows as JSON can hold them."""
    return [asdict(row) for row in rows]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if 0 < share < 0.1 else f"{100 * share:.0f} %"


def _spoken(row: Row) -> str:
    """Name the feature that alarmed most where alarms are more than chance."""
    size = max((size for size in SIZES if row.alarms[size] > 5 * ALPHA), default=None, key=lambda size: -size)
    return "" if size is None else row.through[size].replace("_", " ")
