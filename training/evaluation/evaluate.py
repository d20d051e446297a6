"""Evaluate: a bundle on photographs it never saw, as it is served and in fp32 -> evidence for the report's sections.

The served answers come from visionserve.Classifier, from the files' bytes on; the fp32 ones from the eager network with
the bundle's weights.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from training.data.datamodule import load_served
from training.data.datasets import Split
from training.data.manifest import Manifest
from training.networks import fp32_outputs, load_network
from visionserve.classifier import Classifier
from visionserve.errors import BundleError
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import ModelCard
from visionserve.transforms import Preprocessing

BATCH = 16
CHUNK = 64  # photographs decoded between two movements of the progress bar
_SMALLEST = 1e-30  # a probability below it is rounding


@dataclass(frozen=True)
class Served:
    """What the service says about N photographs: logits (N, C), calibrated by the card, and novelty (N,)."""

    logits: np.ndarray
    novelty: np.ndarray


@dataclass(frozen=True)
class Evidence:
    """What an evaluation has at hand, for the sections of its report: N photographs of one split.

    ``images`` is (N, S, S, 3) uint8 as serving prepares them, ``targets`` (N,) label indices, ``exact`` the (N, C)
    logits of the fp32 network.
    """

    bundle: Path
    classifier: Classifier
    manifest: Manifest
    split: Split
    files: tuple[Path, ...]
    images: np.ndarray
    targets: np.ndarray
    served: Served
    exact: np.ndarray

    @property
    def card(self) -> ModelCard:
        """The bundle's card."""
        return self.classifier.card


def gather(bundle: Path, manifest: Manifest, split: Split = "test") -> Evidence:
    """Ask a bundle about every photograph of one split.

    Raises:
        BundleError: the bundle, the manifest and the split cannot be used together.
    """
    card = ModelCard.load(bundle / CARD)
    if card.labels != manifest.labels:
        raise BundleError(f"{bundle} does not have the labels of this manifest")
    places, targets = manifest.part(split), manifest.targets()
    if not places:
        raise BundleError(f"the manifest has no {split} photographs: choose another --split")
    classifier = Classifier.load(bundle, threads=os.cpu_count() or 1)
    files = tuple(manifest.root / manifest.rows[place].path for place in places)
    images = prepare(files, classifier.preprocessing)
    return Evidence(
        bundle=bundle,
        classifier=classifier,
        manifest=manifest,
        split=split,
        files=files,
        images=images,
        targets=np.array([targets[place] for place in places]),
        served=answers(classifier, images),
        exact=_exact(bundle, card, images),
    )


def prepare(files: Sequence[Path], preprocessing: Preprocessing) -> np.ndarray:
    """Return image files as serving prepares them, (N, S, S, 3) uint8, with a progress bar.

    Raises:
        BundleError: a file does not decode; the message names it.
    """
    found = np.empty((len(files), preprocessing.size, preprocessing.size, 3), np.uint8)
    with progress(len(files), "photographs") as bar:
        for start in range(0, len(files), CHUNK):
            some = files[start : start + CHUNK]
            found[start : start + len(some)] = load_served(some, preprocessing)
            bar.update(len(some))
    return found


def progress(total: int, what: str) -> "tqdm[Any]":
    """Return a progress bar on standard error; none where that is no terminal."""
    return tqdm(total=total, desc=what, unit="", disable=None, leave=False)


def answers(classifier: Classifier, images: np.ndarray) -> Served:
    """Classify prepared images (N, S, S, 3) in batches."""
    probabilities, novelty = [], []
    with progress(len(images), "answers, as served") as bar:
        for batch in batches(images):
            for answer in classifier.classify(batch):
                probabilities.append(answer.probabilities.astype(np.float64))
                novelty.append(answer.novelty)
            bar.update(len(batch))
    # Back to logits, up to a constant that softmax ignores.
    logits = classifier.card.temperature * np.log(np.maximum(np.stack(probabilities), _SMALLEST))
    return Served(logits, np.array(novelty))


def batches(images: np.ndarray, size: int = BATCH) -> Iterator[np.ndarray]:
    """Cut (N, ...) into pieces of at most ``size``."""
    yield from (images[start : start + size] for start in range(0, len(images), size))


def _exact(bundle: Path, card: ModelCard, images: np.ndarray) -> np.ndarray:
    """Return the logits (N, C) of the fp32 network."""
    network, found = load_network(bundle), []
    with progress(len(images), "answers, in fp32") as bar:
        for batch in batches(images):
            found.append(fp32_outputs(network, card, batch).logits)
            bar.update(len(batch))
    return np.concatenate(found)
