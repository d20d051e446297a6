"""Evaluate: a bundle on photographs it never saw, as it is served and in fp32 -> figures and plots.

The served answers come from visionserve.Classifier, from the files' bytes on; the fp32 ones from the eager network with
the bundle's weights.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training import golden, metrics
from training.data import load_served
from training.data import served as served_images
from training.manifest import Manifest
from training.sources import Split
from training.sources.imagefolder import SUFFIXES
from visionserve.card import FILE_NAME as CARD
from visionserve.card import ModelCard
from visionserve.classifier import Classifier
from visionserve.errors import BundleError

FILE_NAME = "metrics.json"
BATCH = 16
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


@dataclass(frozen=True)
class Result:
    """The figures of an evaluation, and the served logits (N, C) with label indices (N,) for plots."""

    figures: dict[str, Any]
    logits: np.ndarray
    targets: np.ndarray


def evaluate(bundle: Path, manifest: Manifest, split: Split = "test", outside: Path | None = None) -> Result:
    """Measure a bundle on one split.

    Args:
        outside: a folder of photographs that show none of the labels: adds how well novelty tells them apart.

    Raises:
        BundleError: the bundle or the manifest cannot be used together.
    """
    card = ModelCard.load(bundle / CARD)
    if card.labels != manifest.labels:
        raise BundleError(f"{bundle} does not have the labels of this manifest")
    classifier = Classifier.load(bundle, threads=os.cpu_count() or 1)
    images, targets = served_images(manifest, split, classifier.preprocessing)
    served = answers(classifier, images)
    exact = np.concatenate([golden.reference_outputs(*job).logits for job in _eager_jobs(bundle, card, images)])
    found = {
        "split": split,
        "manifest_sha256": manifest.digest,
        "served": metrics.summarise(served.logits, targets, card.temperature),
        "fp32": metrics.summarise(exact, targets, card.temperature),
        "agreement": round(float((served.logits.argmax(1) == exact.argmax(1)).mean()), 4),
        "novelty_mean": round(float(served.novelty.mean()), 4),
        "labels": _named(card, metrics.per_label(served.logits, targets)),
        "confusions": _confusions(card, metrics.confusion(served.logits, targets)),
    }
    if outside is not None:
        found |= {"outside": _outside(classifier, served, outside)}
    return Result(found, served.logits, targets)


def answers(classifier: Classifier, images: np.ndarray) -> Served:
    """Classify prepared images (N, S, S, 3) in batches."""
    found = [answer for batch in batches(images) for answer in classifier.classify(batch)]
    probabilities = np.stack([answer.probabilities for answer in found]).astype(np.float64)
    # Back to logits, up to a constant that softmax ignores.
    logits = classifier.card.temperature * np.log(np.maximum(probabilities, _SMALLEST))
    return Served(logits, np.array([answer.novelty for answer in found]))


def batches(images: np.ndarray, size: int = BATCH) -> Iterator[np.ndarray]:
    """Cut (N, ...) into pieces of at most ``size``."""
    yield from (images[start : start + size] for start in range(0, len(images), size))


def save(found: dict[str, Any], path: Path) -> None:
    """Write the figures as readable JSON."""
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _eager_jobs(
    bundle: Path, card: ModelCard, images: np.ndarray
) -> Iterator[tuple[torch.nn.Module, ModelCard, np.ndarray]]:
    network = golden.eager(bundle)
    yield from ((network, card, batch) for batch in batches(images))


def _named(card: ModelCard, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"label": label} | row for label, row in zip(card.labels, rows, strict=True)]


def _confusions(card: ModelCard, counts: np.ndarray) -> list[dict[str, Any]]:
    """Return every mistake that was made: what it was, what was said, how often; the most frequent first."""
    places = [(int(t), int(p)) for t, p in zip(*np.nonzero(counts), strict=True) if t != p]
    places.sort(key=lambda place: (-counts[place], place))
    return [{"label": card.labels[t], "predicted": card.labels[p], "count": int(counts[t, p])} for t, p in places]


def _outside(classifier: Classifier, inside: Served, folder: Path) -> dict[str, Any]:
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise BundleError(f"{folder} holds no photographs")
    outside = answers(classifier, load_served(files, classifier.preprocessing))
    return {
        "photographs": len(files),
        "novelty_mean": round(float(outside.novelty.mean()), 4),
        "novelty_auroc": round(metrics.separation(inside.novelty, outside.novelty), 4),
    }
