"""The classifier: a card, an engine and reference statistics turn image bytes into calibrated classifications."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image

from visionserve import engines, heatmap, novelty, transforms
from visionserve import model_card as cards
from visionserve.engines import Engine, Runtime
from visionserve.errors import BundleError
from visionserve.images import Limits
from visionserve.model_card import ModelCard
from visionserve.novelty import Reference
from visionserve.nvjpeg import JpegDecoder

# Who decodes plain JPEGs; all other images are the CPU's.
Decoder = Literal["cpu", "nvjpeg"]


@dataclass(frozen=True)
class Prediction:
    """A label, its index in the card, and its calibrated probability, 0-1."""

    label: str
    index: int
    probability: float


@dataclass(frozen=True)
class Part:
    """A part of an object, and the probability, 0-1, that it is the one at a place."""

    name: str
    probability: float


@dataclass(frozen=True)
class Classification:
    """The classifier's result for one image.

    ``probabilities`` is (C,) float32, calibrated; ``novelty`` 0-1, see novelty.py; ``class_maps`` (C, h, w) float32.
    ``second_look`` is whether the probabilities are the mean of two looks; the rest is always that of the first.
    ``part_maps`` is (P, h, w) float32, logits of the card's parts, of models that know parts.
    """

    labels: tuple[str, ...]
    probabilities: np.ndarray
    novelty: float
    class_maps: np.ndarray
    second_look: bool = False
    part_maps: np.ndarray | None = None

    def top(self, k: int) -> list[Prediction]:
        """Return the ``k`` most probable labels, the most probable first; all of them when k is larger."""
        order = np.argsort(-self.probabilities, kind="stable")[:k]
        return [Prediction(self.labels[i], int(i), float(self.probabilities[i])) for i in order]

    @property
    def best(self) -> int:
        """The index of the most probable label."""
        return int(self.probabilities.argmax())

    def class_map(self, index: int) -> np.ndarray:
        """Return how much each place of the image speaks for a label: (h, w) float32, in logits."""
        class_map: np.ndarray = self.class_maps[index]
        return class_map

    def part(self, card: ModelCard) -> Part | None:
        """Return the part where the heatmap of the most probable label has its maximum; None without parts."""
        if self.part_maps is None or card.parts is None:
            return None
        place = heatmap.peak_place(self.class_map(self.best), card.input.size)
        probabilities = softmax(self.part_maps[:, *place])
        best = int(probabilities.argmax())
        return Part(card.parts.names[best], float(probabilities[best]))


class Classifier:
    """Classifies batches of prepared images, and prepares them from bytes."""

    def __init__(self, card: ModelCard, engine: Engine, reference: Reference, limits: Limits | None = None) -> None:
        self.card = card
        self.engine = engine
        self.reference = reference
        self.limits = limits or Limits()
        self.preprocessing = transforms.Preprocessing(card.input.size, card.input.crop)
        self.jpeg_decoder: JpegDecoder | None = None
        if len(reference.class_means) != len(card.labels):
            raise BundleError(
                f"the reference statistics have {len(reference.class_means)} classes, the card has {len(card.labels)}"
            )

    @classmethod
    def load(
        cls, directory: Path, threads: int = 1, gpu: int = 0, runtime: Runtime = "auto", decoder: Decoder = "cpu"
    ) -> "Classifier":
        """Load a bundle or an unpacked archive; BundleError when it cannot be used."""
        if decoder not in get_args(Decoder):
            raise BundleError(f"decoder must be one of {', '.join(get_args(Decoder))}, not {decoder!r}")
        card = ModelCard.load(directory / cards.FILE_NAME)
        if decoder == "nvjpeg" and card.device != "cuda":
            raise BundleError(f"nvJPEG decodes on a GPU, and {card.name} was packaged for the {card.device}")
        engine = engines.load(directory / card.model, card.device, threads, gpu, runtime)
        classifier = cls(card, engine, Reference.load(directory / novelty.FILE_NAME))
        if decoder == "nvjpeg":
            device = torch.device("cuda", gpu)
            classifier.jpeg_decoder = JpegDecoder(classifier.preprocessing, classifier.limits, device)
        return classifier

    def prepare(self, data: bytes | bytearray) -> np.ndarray:
        """Return the network's view, (S, S, 3) uint8 RGB, of an encoded image; raises a ServiceError when it cannot."""
        return transforms.load(data, self.preprocessing, self.limits)

    def prepare_plain_jpegs(self, files: Sequence[bytes | bytearray]) -> list[np.ndarray | None]:
        """Return the network's view of those images of a batch that nvJPEG decodes at once; None for all others."""
        return self.jpeg_decoder(files) if self.jpeg_decoder else [None] * len(files)

    def warm_up(self, largest_batch: int) -> None:
        """Decode a JPEG and run every batch size up to the largest once: first runs load, allocate and choose."""
        size = self.card.input.size
        file = io.BytesIO()
        Image.new("RGB", (size, size)).save(file, "JPEG")
        image = self.prepare(file.getvalue())
        if self.jpeg_decoder:
            self.jpeg_decoder.check(file.getvalue())
        for count in range(1, largest_batch + 1):
            self.classify(np.stack([image] * count))

    def classify(self, images: np.ndarray) -> list[Classification]:
        """Return a classification for each of the prepared images (B, S, S, 3), in their order."""
        outputs = self.engine.run(images)
        probabilities = softmax(outputs.logits / self.card.temperature)
        images_apart = zip(probabilities, outputs.logits, outputs.embedding, outputs.class_maps, strict=True)
        classifications = [self._classification(*image) for image in images_apart]
        if outputs.part_maps is None:
            return classifications
        pairs = zip(classifications, outputs.part_maps, strict=True)
        return [replace(classification, part_maps=maps) for classification, maps in pairs]

    def classify_file(self, data: bytes | bytearray) -> Classification:
        """Return the classification of one encoded image, with a second look where the card asks for it.

        Raises a ServiceError when the image cannot be read.
        """
        (first,) = self.classify(self.prepare(data)[None])
        return self.look_again([first], self.prepare_closer(data, first)[None])[0] if self.unsure(first) else first

    def unsure(self, classification: Classification) -> bool:
        """Return whether the card asks for a second look at an image."""
        policy = self.card.second_look
        return policy is not None and float(classification.probabilities.max()) < policy.below

    def prepare_closer(self, data: bytes | bytearray, first: Classification) -> np.ndarray:
        """Return the part of an image, (S, S, 3) uint8 RGB, where its first classification has the most evidence."""
        if self.card.second_look is None:
            raise ValueError("the card has no second look")
        size = self.card.input.size
        x, y = heatmap.peak(first.class_map(first.best), size)
        point = (x / size, y / size)
        return transforms.load_closer(data, self.preprocessing, self.card.second_look.zoom, point, self.limits)

    def look_again(self, firsts: Sequence[Classification], images: np.ndarray) -> list[Classification]:
        """Return the classifications with the mean of both looks' probabilities; ``images`` are `prepare_closer`'s."""
        pairs = zip(firsts, self.classify(images), strict=True)
        return [
            replace(first, probabilities=(first.probabilities + second.probabilities) / 2, second_look=True)
            for first, second in pairs
        ]

    def _classification(
        self, probabilities: np.ndarray, logits: np.ndarray, embedding: np.ndarray, maps: np.ndarray
    ) -> Classification:
        return Classification(self.card.labels, probabilities, self.reference.novelty(embedding, logits), maps)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities (..., C) of logits (..., C), each row's to the bit as if it were alone."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities: np.ndarray = powers / powers.sum(-1, keepdims=True)
    return probabilities
