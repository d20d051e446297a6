"""Pointing game on CUB-200-2011: whether the served heatmap peaks on the bird, and which part is nearest to the peak.

A hit is a heatmap whose peak falls on the object (Zhang et al. 2018, "Top-down neural attention by excitation
backprop", section 4.1). Here the object is its bounding box and the heatmap that of the predicted label; two baselines
need no network: the centre of the image and chance.
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
from training.evaluation.geometry import Position, View, look
from training.evaluation.metrics import rounded, share_with_interval
from visionserve.classifier import Classifier
from visionserve.errors import BundleError, ServiceError
from visionserve.heatmap import peak

BATCH = 16


@dataclass(frozen=True)
class Pointing:
    """Where the heatmap of one image's predicted label peaks; positions are in pixels of the file as stored.

    Attributes:
        view: from the network's input to the file.
        class_map: of the predicted label, (h, w).
        inside: whether the peak falls into the box, widened by the tolerance; ``centre_inside`` the image's centre.
        chance: the box's share, 0-1, of the network's input.
        part: the visible part nearest to the peak, ``centre_part`` to the image's centre; None where none is visible.
    """

    path: str
    label: str
    predicted: str
    view: View
    class_map: np.ndarray
    annotation: Annotation
    peak: Position
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
    """Classify one split's images and return where each heatmap peaks.

    Args:
        tolerance: pixels of the file by which a peak may miss the box.

    Raises:
        BundleError: the bundle or the annotations cannot be used, or not with this manifest.
    """
    annotations = cub200.annotations(manifest.root)
    rows = [manifest.rows[index] for index in manifest.part(split)]
    if not rows or any(row.path not in annotations for row in rows):
        raise BundleError(f"the bundle's manifest has no {split} images that {manifest.root} has annotations of")
    classifier = Classifier.load(bundle, threads=os.cpu_count() or 1)
    if not classifier.card.heatmap:
        raise BundleError(f"{bundle} has no heatmaps: {classifier.card.architecture} has no class maps")
    peaks = []
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        views = [network_view(manifest.root / row.path, classifier) for row in batch]
        answers = classifier.classify(np.stack([image for image, _ in views]))
        for row, (_, view), answer in zip(batch, views, answers, strict=True):
            best = answer.top(1)[0]
            names = (row.path, row.label, best.label)
            peaks.append(_pointing(names, view, answer.class_map(best.index), annotations[row.path], tolerance))
    return peaks


def network_view(file: Path, classifier: Classifier) -> tuple[np.ndarray, View]:
    """Return the network's input of a file, and the view; a BundleError names a file that does not decode."""
    try:
        return look(read(file), classifier.preprocessing)
    except ServiceError as error:
        raise BundleError(f"{file} cannot be used: {error.message}") from error


def nearest(parts: Sequence[Part], position: Position) -> Part | None:
    """Return the visible part nearest to a position; None when no part is visible."""
    return min((p for p in parts if p.visible), key=lambda part: math.dist(position, (part.x, part.y)), default=None)


def figures(peaks: Sequence[Pointing], split: Split, tolerance: float) -> dict[str, Any]:
    """Return the numbers of parts.json: shares 0-1, intervals 95 %."""
    right = [item for item in peaks if item.predicted == item.label]
    near = [item.distance for item in peaks if item.distance is not None]
    return {
        "split": split,
        "photographs": len(peaks),
        "tolerance_px": tolerance,
        "pointing": {
            "peak": _share(sum(item.inside for item in peaks), len(peaks)),
            "peak_of_right_answers": _share(sum(item.inside for item in right), len(right)),
            "centre": _share(sum(item.centre_inside for item in peaks), len(peaks)),
            "chance": {"share": rounded(np.mean([item.chance for item in peaks]))},
        },
        "parts": list(_parts(peaks)),
        "without_visible_parts": len(peaks) - len(near),
        "median_distance": rounded(np.median(near)) if near else None,
    }


def _pointing(
    names: tuple[str, str, str], view: View, class_map: np.ndarray, annotation: Annotation, tolerance: float
) -> Pointing:
    size = view.preprocessing.size
    top, centre = view.to_file(peak(class_map, size)), view.to_file((size / 2, size / 2))
    box = _widened(annotation.box, tolerance)
    return Pointing(
        *names,
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


def _parts(peaks: Sequence[Pointing]) -> Iterator[dict[str, Any]]:
    """Yield a row for each part, the most frequent first."""
    named = [item for item in peaks if item.part is not None]
    counts = Counter(item.part.name for item in named if item.part is not None)
    centre = Counter(item.centre_part.name for item in named if item.centre_part is not None)
    visible = Counter(part.name for item in named for part in item.annotation.parts if part.visible)
    for name in sorted(visible, key=lambda name: (-counts[name], name)):
        share = _share(counts[name], len(named))
        yield {"part": name, **share, "nearest_to_centre": centre[name], "visible": visible[name]}


def _share(hits: int, count: int) -> dict[str, Any]:
    measured = share_with_interval(hits, count) if count else {"share": None, "interval": None}
    return {"hits": hits, "of": count, **measured}


def _widened(box: Box, by: float) -> Box:
    return Box(box.x - by, box.y - by, box.width + 2 * by, box.height + 2 * by)


def _within(box: Box, position: Position) -> bool:
    return box.x <= position[0] <= box.x + box.width and box.y <= position[1] <= box.y + box.height


def _covered(box: Box, view: View) -> float:
    """Return the share of the network's input that lies in the box."""
    size = view.preprocessing.size
    corners = np.array([view.to_file((0, 0)), view.to_file((size, size))])
    low, high = corners.min(0), corners.max(0)
    inner = np.minimum(high, (box.x + box.width, box.y + box.height)) - np.maximum(low, (box.x, box.y))
    return float(np.maximum(inner, 0).prod() / (high - low).prod())
