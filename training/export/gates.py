"""Gates: what a packaged network must prove before it may be served. They need no data set, only drawn images.

golden    the fp32 network still answers as when its bundle was made
export    the ONNX file agrees with the fp32 network
batching  the ONNX file answers an image alike, to the bit, alone and in any batch
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from training import golden
from training.networks import fp32_outputs, load_network, synthetic_images
from visionserve import engines
from visionserve.engines import Engine, Outputs
from visionserve.errors import BundleError
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import ModelCard
from visionserve.torch_engine import TorchEngine

Precision = Literal["fp32", "fp16", "int8"]

# Another processor or library version may round otherwise; anything above is another network.
GOLDEN_PROBABILITY = 0.02
# Largest difference of a logit; logits span about 20, and half precision carries 11 bits.
LOGITS: dict[Precision, float] = {"fp32": 1e-3, "fp16": 0.1}
# In int8, the mean total variation distance of the answers (0 the same, 1 nothing in common). Drawn flowers are unlike
# photographs, so sound networks reach 0.1 here; saturated or wrongly scaled ones come close to 1.
INT8_DISTANCE = 0.3
# A label that leads by this probability in fp32 must lead in int8 too.
SURE_LEAD = 0.5


@dataclass(frozen=True)
class Finding:
    """What a gate measured, against what it allows."""

    gate: str
    measured: float
    allowed: float
    what: str

    @property
    def passed(self) -> bool:
        """Whether the gate is open."""
        return self.measured <= self.allowed

    def __str__(self) -> str:
        """Return the numbers on one line."""
        verdict = "passed" if self.passed else "FAILED"
        return f"gate {self.gate}: {verdict}: {self.what} {self.measured:.2g}, allowed {self.allowed:.2g}"


def check(bundle: Path, served: Path, precision: Precision) -> list[Finding]:
    """Run every gate for ``served``, an ONNX file made from ``bundle``.

    Raises:
        BundleError: a gate failed; the message has all the numbers.
    """
    card = ModelCard.load(bundle / CARD)
    images = synthetic_images(card.input.size)
    expected = fp32_outputs(load_network(bundle), card, images)
    findings = list(_findings(bundle, card, images, expected, _engine(served, precision), precision))
    if precision == "fp16":
        findings += _torch_findings(bundle, images, expected)
    if not all(finding.passed for finding in findings):
        raise BundleError("\n".join(str(finding) for finding in findings))
    return findings


def _engine(served: Path, precision: Precision) -> Engine:
    """Return the engine that will serve the file; for CUDA, ONNX Runtime on the CPU stands in."""
    return engines.load(served, runtime="onnxruntime" if precision == "fp16" else "auto")


def _findings(
    bundle: Path, card: ModelCard, images: np.ndarray, expected: Outputs, engine: Engine, precision: Precision
) -> Iterator[Finding]:
    probabilities = golden.probabilities(expected.logits, card)
    drift = _golden_drift(golden.read(bundle), probabilities, card)
    yield Finding("golden", drift, GOLDEN_PROBABILITY, "largest change of a golden probability")
    found = engine.run(images)
    if precision == "int8":
        served = golden.probabilities(found.logits, card)
        distance = float(np.abs(served - probabilities).sum(1).mean() / 2)
        yield Finding("export", distance, INT8_DISTANCE, "mean distance of the answers")
        flips = confident_flips(probabilities, served)
        yield Finding("export", flips, 0, "sure answers that changed")
    else:
        yield Finding(
            "export", _largest(found.logits - expected.logits), LOGITS[precision], "largest difference of a logit"
        )
    yield Finding(
        "batching",
        items_that_depend_on_their_batch(engine, images, found),
        0,
        "images whose answer depends on their batch",
    )


def _torch_findings(bundle: Path, images: np.ndarray, expected: Outputs) -> list[Finding]:
    """Check the torch engine in half precision; it pads, so what runs with a batch mate is compared within a size."""
    engine = TorchEngine(bundle, "cpu", dtype=torch.float16)
    outputs, turned = engine.run(images), engine.run(np.ascontiguousarray(images[::-1]))
    last = len(images) - 1
    depend = sum(not _same(_row(outputs, i), _row(turned, last - i)) for i in range(len(images)))
    alone = np.concatenate([engine.run(image[None]).logits for image in images])
    return [
        Finding("torch export", _largest(outputs.logits - expected.logits), LOGITS["fp16"], "largest logit difference"),
        Finding("torch batching", depend, 0, "images whose outputs depend on their batch mates"),
        Finding("torch batching", _largest(outputs.logits - alone), LOGITS["fp16"], "largest logit difference alone"),
    ]


def confident_flips(expected: np.ndarray, served: np.ndarray) -> int:
    """Count the rows of (B, C) whose best label changed although it led by SURE_LEAD or more."""
    first, second = np.sort(expected, axis=1)[:, ::-1][:, :2].T
    return int(((expected.argmax(1) != served.argmax(1)) & (first - second >= SURE_LEAD)).sum())


def items_that_depend_on_their_batch(engine: Engine, images: np.ndarray, found: Outputs) -> int:
    """Count the images (B, S, S, 3) whose outputs, alone or in another batch, are not those of ``found`` to the bit."""
    turned = engine.run(np.ascontiguousarray(images[::-1]))
    alone = [engine.run(image[None]) for image in images]
    last = len(images) - 1
    same = [
        _same(_row(found, place), _row(turned, last - place)) and _same(_row(found, place), _row(alone[place], 0))
        for place in range(len(images))
    ]
    return same.count(False)


def _row(outputs: Outputs, place: int) -> list[np.ndarray]:
    return [outputs.logits[place], outputs.class_maps[place], outputs.embedding[place]]


def _same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def _golden_drift(answers: list[list[dict[str, object]]], probabilities: np.ndarray, card: ModelCard) -> float:
    if len(answers) != len(probabilities):
        raise BundleError(f"golden.json has {len(answers)} answers, this project draws {len(probabilities)} images")
    index = {label: place for place, label in enumerate(card.labels)}
    return max(
        abs(float(row[index[str(entry["label"])]]) - float(str(entry["probability"])))
        for row, entries in zip(probabilities, answers, strict=True)
        for entry in entries
    )


def _largest(difference: np.ndarray) -> float:
    return float(np.abs(difference).max())
