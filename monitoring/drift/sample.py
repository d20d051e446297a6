"""A sample: the measured features of N answered images, a column for each feature that can drift.

images -> Classifier -> sample              (in process: references, studies, folders)
lines of the prediction log -> sample       (answered by the service)
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from monitoring.drift.properties import Properties, measure
from visionserve.classifier import Classification, Classifier
from visionserve.errors import BundleError, ServiceError
from visionserve.files import images_below, read_regular
from visionserve.images import read_header

# The features with an order, and the decimals that each is compared with: those of the service's answers and of the
# prediction log. Values that differ in their rounding only would differ for the Kolmogorov-Smirnov test. The label,
# which has no order, is kept beside them.
DECIMALS = {"novelty": 6, "confidence": 6, "brightness": 4, "contrast": 4, "sharpness": 4, "resolution": 4}
FEATURES = tuple(DECIMALS)
_BATCH = 16
_AHEAD = 64  # images decoded at a time, so that a large folder does not fill the memory
Row = tuple[dict[str, float | None], int]


class View(NamedTuple):
    """An image as the network sees it, (S, S, 3) uint8, and the shorter side of the whole, in pixels."""

    prepared: np.ndarray
    shorter_side: int


@dataclass(frozen=True)
class Sample:
    """N images: (N,) float32 for each feature, NaN where it was not measured, and the predicted label's index (N,)."""

    features: dict[str, np.ndarray]
    label: np.ndarray

    def __len__(self) -> int:
        return len(self.label)

    def take(self, rows: np.ndarray | slice) -> "Sample":
        """Return the images of these rows."""
        return Sample({name: column[rows] for name, column in self.features.items()}, self.label[rows])

    def measured(self, name: str) -> np.ndarray:
        """Return the values of a feature, of those images where it was measured."""
        column = self.features[name]
        values: np.ndarray = column[~np.isnan(column)]
        return values


def join(samples: Sequence[Sample]) -> Sample:
    """Return the images of all the samples, in order."""
    features = {name: np.concatenate([sample.features[name] for sample in samples]) for name in FEATURES}
    return Sample(features, np.concatenate([sample.label for sample in samples]))


def of_rows(rows: Iterable[Row]) -> Sample:
    """Return the sample of (features, index of the predicted label) pairs; a feature that is missing is NaN."""
    pairs = list(rows)
    features = {
        name: rounded(name, np.array([np.nan if row.get(name) is None else row[name] for row, _ in pairs], np.float64))
        for name in FEATURES
    }
    return Sample(features, np.array([label for _, label in pairs], np.int64))


def rounded(name: str, column: np.ndarray) -> np.ndarray:
    """Return the values of a feature with its decimals, (N,) float32."""
    values: np.ndarray = np.round(column.astype(np.float64), DECIMALS[name]).astype(np.float32)
    return values


def some_images_below(folder: Path) -> list[Path]:
    """Return the images below a folder, sorted; BundleError when there is none."""
    files = images_below(folder)
    if not files:
        raise BundleError(f"no images in {folder}")
    return files


def of_files(classifier: Classifier, files: Sequence[Path]) -> tuple[Sample, list[tuple[Path, str]]]:
    """Classify images as the service does.

    Returns:
        The sample, in the order of ``files``, and the files that could not be used, each with the reason.
    """
    unusable: list[tuple[Path, str]] = []

    def views() -> Iterator[View]:
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(files), _AHEAD):
                part = files[start : start + _AHEAD]
                for file, result in zip(part, pool.map(lambda path: view(classifier, path), part), strict=True):
                    if isinstance(result, View):
                        yield result
                    else:
                        unusable.append((file, result))

    return of_views(classifier, views()), unusable


def of_views(classifier: Classifier, views: Iterable[View]) -> Sample:
    """Classify prepared images."""
    remaining, crop = iter(views), classifier.card.input.crop
    rows: list[Row] = []
    while batch := list(islice(remaining, _BATCH)):
        answers = classifier.classify(np.stack([entry.prepared for entry in batch]))
        for entry, answer in zip(batch, answers, strict=True):
            rows.append(_row(answer, measure(entry.prepared, entry.shorter_side, crop)))
    return of_rows(rows)


def view(classifier: Classifier, file: Path) -> View | str:
    """Return what the network sees of a file, or the reason why the file cannot be used."""
    try:
        return prepare(classifier, read_regular(file))
    except OSError as error:
        return error.strerror or str(error)
    except ServiceError as error:
        return error.message


def prepare(classifier: Classifier, data: bytes) -> View:
    """Return what the network sees of an image file's bytes; ServiceError where they cannot be used."""
    prepared = classifier.prepare(data)
    return View(prepared, min(read_header(data).size))


def load_classifier(bundle: Path) -> Classifier:
    """Load a bundle for all the cores that this process may use."""
    return Classifier.load(bundle, threads=len(os.sched_getaffinity(0)))


def _row(answer: Classification, properties: Properties) -> Row:
    best = answer.top(1)[0]
    row: dict[str, float | None] = {"novelty": answer.novelty, "confidence": best.probability}
    return row | vars(properties), best.index
