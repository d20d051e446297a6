"""Evaluate: a bundle's predictions for images it was not trained on, as served and in fp32, for the report's sections.

The served predictions come from visionserve.Classifier, from the files' bytes on; the fp32 ones from the PyTorch
network with the bundle's weights.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from training.data.cache import read
from training.data.datamodule import load_served
from training.data.datasets import Split
from training.data.manifest import Manifest
from training.networks import fp32_outputs, load_network
from visionserve.classifier import Classification, Classifier
from visionserve.errors import BundleError
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import ModelCard
from visionserve.transforms import Preprocessing

BATCH = 16
CHUNK = 64  # images decoded between two movements of the progress bar
_SMALLEST = 1e-30  # a probability below it is rounding


@dataclass(frozen=True)
class Predictions:
    """What the service predicts for N images: logits (N, C), whose calibration is the card's, and novelty (N,)."""

    logits: np.ndarray
    novelty: np.ndarray


@dataclass(frozen=True)
class Validation:
    """Predictions for the validation images, from which thresholds are chosen, and their label indices (N,)."""

    predictions: Predictions
    targets: np.ndarray


@dataclass(frozen=True)
class EvaluationData:
    """What the sections of a report are computed from: N images of one split.

    ``images`` is (N, S, S, 3) uint8 as serving prepares them, ``targets`` (N,) label indices, ``fp32_logits`` (N, C).
    ``validation`` is None where the manifest has no validation images, or where the split is validation itself.
    """

    bundle: Path
    classifier: Classifier
    manifest: Manifest
    split: Split
    files: tuple[Path, ...]
    images: np.ndarray
    targets: np.ndarray
    predictions: Predictions
    fp32_logits: np.ndarray
    validation: Validation | None = None

    @property
    def groups(self) -> tuple[str, ...]:
        """What each image comes from; empty where the manifest does not say it of every one."""
        return self.manifest.groups(self.split)

    @property
    def card(self) -> ModelCard:
        """The bundle's card."""
        return self.classifier.card


def collect(bundle: Path, manifest: Manifest, split: Split = "test") -> EvaluationData:
    """Run a bundle on every image of one split, and on the validation images that thresholds are chosen from.

    Raises:
        BundleError: the bundle, the manifest and the split cannot be used together.
    """
    card = ModelCard.load(bundle / CARD)
    if card.labels != manifest.labels:
        raise BundleError(f"{bundle} does not have the labels of this manifest")
    if not manifest.part(split):
        raise BundleError(f"the manifest has no {split} images: choose another --split")
    classifier = Classifier.load(bundle, threads=os.cpu_count() or 1)
    files, targets = _files(manifest, split)
    images = prepare(files, classifier.preprocessing)
    return EvaluationData(
        bundle=bundle,
        classifier=classifier,
        manifest=manifest,
        split=split,
        files=files,
        images=images,
        targets=targets,
        predictions=predict(classifier, images, files),
        fp32_logits=_fp32_logits(bundle, card, images),
        validation=_validation(classifier, manifest, split),
    )


def prepare(files: Sequence[Path], preprocessing: Preprocessing) -> np.ndarray:
    """Return image files as serving prepares them, (N, S, S, 3) uint8, with a progress bar.

    Raises:
        BundleError: a file does not decode; the message names it.
    """
    images = np.empty((len(files), preprocessing.size, preprocessing.size, 3), np.uint8)
    with progress(len(files), "images") as bar:
        for start in range(0, len(files), CHUNK):
            chunk = files[start : start + CHUNK]
            images[start : start + len(chunk)] = load_served(chunk, preprocessing)
            bar.update(len(chunk))
    return images


def progress(total: int, what: str) -> "tqdm[Any]":
    """Return a progress bar on standard error; none where that is not a terminal."""
    return tqdm(total=total, desc=what, unit="", disable=None, leave=False)


def predict(classifier: Classifier, images: np.ndarray, files: Sequence[Path] | None = None) -> Predictions:
    """Classify prepared images (N, S, S, 3) in batches.

    Args:
        files: the same images, for the second look of a card that asks for one; without them there is none.
    """
    probabilities, novelty = [], []
    with progress(len(images), "predictions, as served") as bar:
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH]
            answers = classifier.classify(batch)
            if files is not None:
                answers = _look_again(classifier, answers, files[start : start + BATCH])
            for answer in answers:
                probabilities.append(answer.probabilities.astype(np.float64))
                novelty.append(answer.novelty)
            bar.update(len(batch))
    # Back to logits, up to a constant that softmax ignores.
    logits = classifier.card.temperature * np.log(np.maximum(np.stack(probabilities), _SMALLEST))
    return Predictions(logits, np.array(novelty))


def _look_again(
    classifier: Classifier, answers: Sequence[Classification], files: Sequence[Path]
) -> list[Classification]:
    """Return the classifications with a second look at those of which the card's policy says so."""
    results = list(answers)
    for index, (answer, file) in enumerate(zip(answers, files, strict=True)):
        if classifier.unsure(answer):
            closer = classifier.prepare_closer(read(file), answer)
            (results[index],) = classifier.look_again([answer], closer[None])
    return results


def batches(images: np.ndarray, size: int = BATCH) -> Iterator[np.ndarray]:
    """Cut (N, ...) into pieces of at most ``size``."""
    yield from (images[start : start + size] for start in range(0, len(images), size))


def _files(manifest: Manifest, split: Split) -> tuple[tuple[Path, ...], np.ndarray]:
    """Return the files of a split and their label indices (N,)."""
    indices, targets = manifest.part(split), manifest.targets()
    files = tuple(manifest.root / manifest.rows[index].path for index in indices)
    return files, np.array([targets[index] for index in indices])


def _validation(classifier: Classifier, manifest: Manifest, split: Split) -> Validation | None:
    if split == "val" or not manifest.part("val"):
        return None
    files, targets = _files(manifest, "val")
    return Validation(predict(classifier, prepare(files, classifier.preprocessing), files), targets)


def _fp32_logits(bundle: Path, card: ModelCard, images: np.ndarray) -> np.ndarray:
    """Return the logits (N, C) of the fp32 network."""
    network, logits = load_network(bundle), []
    with progress(len(images), "predictions, in fp32") as bar:
        for batch in batches(images):
            logits.append(fp32_outputs(network, card, batch).logits)
            bar.update(len(batch))
    return np.concatenate(logits)
