"""Parts: on what of an annotated bird does the served heatmap peak, and does it peak on the bird at all?

The second question is the pointing game (Zhang et al. 2018, "Top-down neural attention by excitation backprop",
section 4.1): a hit is a heatmap whose strongest place falls on the object. Here the object is its bounding box, the
heatmap that of the predicted label, and beside it stand two that need no network: the centre of the picture and chance.
"""

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.data.cache import read
from training.data.datasets import Split, cub200
from training.data.datasets.cub200 import Annotation, Box, Part
from training.data.manifest import Manifest
from training.evaluation.geometry import Place, View, look
from training.evaluation.metrics import rounded, wilson
from visionserve.classifier import Classifier
from visionserve.errors import BundleError, ServiceError
from visionserve.heatmap import peak

BATCH = 16


@dataclass(frozen=True)
class Pointing:
    """Where the heatmap of one photograph's predicted label peaks; places are in pixels of the file as stored.

    Attributes:
        view: from the network's input to the file.
        class_map: of the label that was said, (h, w).
        inside: whether the peak falls into the box, widened by the tolerance; ``centre_inside`` the picture's centre.
        chance: the box's share, 0-1, of what the network sees.
        part: the visible part nearest to the peak, ``centre_part`` to the picture's centre; None where none is visible.
    """

    path: str
    label: str
    said: str
    view: View
    class_map: np.ndarray
    annotation: Annotation
    peak: Place
    inside: bool
    centre_inside: bool
    chance: float
    part: Part | None
    centre_part: Part | None

    @property
    def distance(self) -> float | None:
        """From the peak to the nearest part, as a share of the box's diagonal."""
        if self.part is None:
            return None
        box = self.annotation.box
        return math.dist(self.peak, (self.part.x, self.part.y)) / math.hypot(box.width, box.height)


def point(bundle: Path, manifest: Manifest, split: Split = "test", tolerance: float = 0.0) -> list[Pointing]:
    """Classify one split's photographs and return where each heatmap peaks.

    Args:
        tolerance: pixels of the file by which a peak may miss the box.

    Raises:
        BundleError: the bundle or the annotations cannot be used, or not with this manifest.
    """
    known = cub200.annotations(manifest.root)
    rows = [manifest.rows[place] for place in manifest.part(split)]
    if not rows or any(row.path not in known for row in rows):
        raise BundleError(f"the bundle's manifest has no {split} photographs that {manifest.root} has annotations of")
    classifier = Classifier.load(bundle, threads=os.cpu_count() or 1)
    found = []
    for start in range(0, len(rows), BATCH):
        some = rows[start : start + BATCH]
        seen = [see(manifest.root / row.path, classifier) for row in some]
        answers = classifier.classify(np.stack([image for image, _ in seen]))
        for row, (_, view), answer in zip(some, seen, answers, strict=True):
            said = answer.top(1)[0]
            named = (row.path, row.label, said.label)
            found.append(_pointing(named, view, answer.class_map(said.index), known[row.path], tolerance))
    return found


def see(file: Path, classifier: Classifier) -> tuple[np.ndarray, View]:
    """Return the network's input of a file, and the view; a BundleError names a file that does not decode."""
    try:
        return look(read(file), classifier.preprocessing)
    except ServiceError as error:
        raise BundleError(f"{file} cannot be used: {error.message}") from error


def nearest(parts: Sequence[Part], place: Place) -> Part | None:
    """Return the visible part nearest to a place; None when no part is visible."""
    return min((p for p in parts if p.visible), key=lambda part: math.dist(place, (part.x, part.y)), default=None)


def figures(found: Sequence[Pointing], split: Split, tolerance: float) -> dict[str, Any]:
    """Return the figures of parts.json: shares 0-1, intervals 95 %."""
    right = [item for item in found if item.said == item.label]
    near = [item.distance for item in found if item.distance is not None]
    return {
        "split": split,
        "photographs": len(found),
        "tolerance_px": tolerance,
        "pointing": {
            "peak": _share(sum(item.inside for item in found), len(found)),
            "peak_of_right_answers": _share(sum(item.inside for item in right), len(right)),
            "centre": _share(sum(item.centre_inside for item in found), len(found)),
            "chance": {"share": rounded(np.mean([item.chance for item in found]))},
        },
        "parts": list(_parts(found)),
        "without_visible_parts": len(found) - len(near),
        "median_distance": rounded(np.median(near)) if near else None,
    }


def _pointing(
    named: tuple[str, str, str], view: View, class_map: np.ndarray, annotation: Annotation, tolerance: float
) -> Pointing:
    size = view.preprocessing.size
    top, centre = view.to_file(peak(class_map, size)), view.to_file((size / 2, size / 2))
    box = _widened(annotation.box, tolerance)
    return Pointing(
        *named,
        view=view,
        class_map=class_map,
        annotation=annotation,
        peak=top,
        inside=_within(box, top),
        centre_inside=_within(box, centre),
        chance=_covered(box, view),
        part=nearest(annotation.parts, top),
        centre_part=nearest(annotation.parts, centre),
    )


def _parts(found: Sequence[Pointing]) -> Iterator[dict[str, Any]]:
    """Yield a row for each part, the most frequent first."""
    named = [item for item in found if item.part is not None]
    counts = Counter(item.part.name for item in named if item.part is not None)
    centre = Counter(item.centre_part.name for item in named if item.centre_part is not None)
    visible = Counter(part.name for item in named for part in item.annotation.parts if part.visible)
    for name in sorted(visible, key=lambda name: (-counts[name], name)):
        share = _share(counts[name], len(named))
        yield {"part": name, **share, "nearest_to_centre": centre[name], "visible": visible[name]}


def _share(hits: int, count: int) -> dict[str, Any]:
    if not count:
        return {"hits": 0, "of": 0, "share": None, "interval": None}
    bounds = [rounded(bound) for bound in wilson(hits, count)]
    return {"hits": hits, "of": count, "share": rounded(hits / count), "interval": bounds}


def _widened(box: Box, by: float) -> Box:
    return Box(box.x - by, box.y - by, box.width + 2 * by, box.height + 2 * by)


def _within(box: Box, place: Place) -> bool:
    return box.x <= place[0] <= box.x + box.width and box.y <= place[1] <= box.y + box.height


def _covered(box: Box, view: View) -> float:
    """Return the share of what the network sees that lies in the box."""
    size = view.preprocessing.size
    corners = np.array([view.to_file((0, 0)), view.to_file((size, size))])
    low, high = corners.min(0), corners.max(0)
    inner = np.minimum(high, (box.x + box.width, box.y + box.height)) - np.maximum(low, (box.x, box.y))
    return float(np.maximum(inner, 0).prod() / (high - low).prod())
