"""Gates: the checks a network must pass before it may be served.

When a bundle is packaged, on synthetic images, without a data set:
golden    the fp32 network still gives the outputs it gave when its bundle was made
export    the ONNX file agrees with the fp32 network
batching  the ONNX file gives an image the same outputs, to the bit, alone and in any batch
second look  where the card has one: an image of which the network is unsure gets the same answer alone and in any batch

When a bundle is made, on its training and validation images:
int8      image by image, int8 and fp32 predict the same label with nearly the same probabilities
decode    the scaled JPEG decode leads to the same labels as the full decode
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from PIL import Image

from training import golden
from training.networks import fp32_outputs, load_network, synthetic_images
from visionserve import batch, engines, novelty
from visionserve.batch import Reply
from visionserve.classifier import Classifier, softmax
from visionserve.engines import Engine, Outputs
from visionserve.errors import BundleError
from visionserve.images import decode
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import ModelCard, SecondLook
from visionserve.novelty import Reference
from visionserve.request_parsing import RawRequest
from visionserve.torch_engine import TorchEngine

Precision = Literal["fp32", "fp16", "int8"]

# Another processor or library version may round otherwise; anything above is another network.
GOLDEN_PROBABILITY = 0.02
# Largest difference of a logit; logits span about 20, and half precision carries 11 bits.
LOGITS: dict[Precision, float] = {"fp32": 1e-3, "fp16": 0.1}
# In int8, the mean total variation distance of the probabilities (0 the same, 1 nothing in common). Synthetic images
# are unlike real ones, so good networks reach 0.1 here; saturated or wrongly scaled ones come close to 1.
INT8_DISTANCE = 0.3
# A label that leads by this probability in fp32 must lead in int8 too.
SURE_LEAD = 0.5
# The same on images that the network was made for, over all of them. The shipped model measures 0.003 and 0.005 on 264
# training and 736 validation images.
INT8_CHANGED = 0.02  # share of the labels
INT8_LEAST = 50  # images: of fewer one is a larger share, so that no change among them shows nothing
INT8_IMAGES_DISTANCE = 0.05
DECODE_CHANGED = 0.005  # share of the labels that the scaled decode may change
FREE = 1  # label that may always change: of few images one is a large share and proves nothing


@dataclass(frozen=True)
class Finding:
    """The measured value of a gate, and the largest that it allows."""

    gate: str
    measured: float
    allowed: float
    what: str

    @property
    def passed(self) -> bool:
        """Whether the gate passed."""
        return self.measured <= self.allowed

    def __str__(self) -> str:
        """Return the result on one line."""
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
    if card.second_look is not None:
        findings.append(second_look(card, images, _engine(served, precision), bundle))
    if precision == "fp16":
        findings += _torch_findings(bundle, images, expected)
    require(findings)
    return findings


def int8_gates(int8: np.ndarray, fp32: np.ndarray, temperature: float) -> list[Finding]:
    """Compare two sets of logits (N, C) of the same images: labels and probabilities, image by image.

    Two accuracies of a dozen images would say nothing; the agreement needs no labels, so that all images count.
    """
    changed = int((int8.argmax(1) != fp32.argmax(1)).sum())
    stated, exact = (_softmax(logits, temperature) for logits in (int8, fp32))
    distance = float(np.abs(stated - exact).sum(1).mean() / 2)
    missing = max(0, INT8_LEAST - len(int8))
    return [
        Finding("int8", changed / len(int8), INT8_CHANGED, f"share of labels changed by int8, of {len(int8)} images,"),
        Finding("int8", distance, INT8_IMAGES_DISTANCE, "mean distance of the probabilities on these images"),
        Finding("int8", missing, 0, f"images that are missing to the {INT8_LEAST} which can show such a share,"),
    ]


def beside_probe(int8: np.ndarray, fp32: np.ndarray, targets: np.ndarray, probe_right: np.ndarray) -> list[Finding]:
    """Compare the answers of int8 with those of the run's linear probe, image by image, on its validation images.

    The weights are never less accurate there than the probe, so int8 must not be; and what both the probe and fp32 get
    right is lost to int8 alone, whatever it gains elsewhere by chance. No image is free: fp32 can be served instead.

    Args:
        int8: logits (N, C), as are those of ``fp32``.
        targets: (N,) label indices.
        probe_right: (N,) bool.
    """
    int8_right, fp32_right = (logits.argmax(1) == targets for logits in (int8, fp32))
    count, behind = len(targets), int(probe_right.sum()) - int(int8_right.sum())
    lost = int((probe_right & fp32_right & ~int8_right).sum())
    images = f"of {count} validation images"
    return [
        Finding(
            "int8", max(0.0, behind / count), 0.0, f"share {images} that int8 gets right less often than the probe,"
        ),
        Finding("int8", lost / count, INT8_CHANGED, f"share {images} that probe and fp32 get right and int8 does not,"),
    ]


def decode_gate(classifier: Classifier, images: Iterable[bytes]) -> Finding:
    """Compare the labels of image files after the scaled decode with those after decoding every pixel."""
    changed = count = 0
    for data in images:
        count += 1
        fast = classifier.prepare(data)
        full = classifier.preprocessing(decode(data, limits=classifier.limits))
        if not np.array_equal(fast, full):  # most images are too small to be scaled at all
            one, other = classifier.classify(np.stack([fast, full]))
            changed += int(one.probabilities.argmax() != other.probabilities.argmax())
    allowed = max(DECODE_CHANGED, FREE / count)
    return Finding("decode", changed / count, allowed, "share of labels changed by the scaled decode")


def require(findings: Sequence[Finding]) -> None:
    """Raise a BundleError with all the numbers unless every gate passed."""
    if all(finding.passed for finding in findings):
        return
    advice = ""
    if any(finding.gate == "int8" and not finding.passed for finding in findings):
        advice = (
            "\nQuantization changes this network's predictions too much to serve it in int8: train it longer or on "
            "more images (confident predictions survive quantization), or start from another network."
        )
    raise BundleError("\n".join(str(finding) for finding in findings) + advice)


def _engine(served: Path, precision: Precision) -> Engine:
    """Return the engine that will serve the file; for CUDA, ONNX Runtime on the CPU stands in."""
    return engines.load(served, runtime="onnxruntime" if precision == "fp16" else "auto")


def _findings(
    bundle: Path, card: ModelCard, images: np.ndarray, expected: Outputs, engine: Engine, precision: Precision
) -> Iterator[Finding]:
    reference = golden.probabilities(expected.logits, card)
    drift = _golden_drift(golden.read(bundle), reference, card)
    yield Finding("golden", drift, GOLDEN_PROBABILITY, "largest change of a golden probability")
    outputs = engine.run(images)
    if precision == "int8":
        served = golden.probabilities(outputs.logits, card)
        distance = float(np.abs(served - reference).sum(1).mean() / 2)
        yield Finding("export", distance, INT8_DISTANCE, "mean distance of the probabilities")
        flips = confident_flips(reference, served)
        yield Finding("export", flips, 0, "confident labels that changed")
    else:
        yield Finding(
            "export", _largest(outputs.logits - expected.logits), LOGITS[precision], "largest difference of a logit"
        )
    yield Finding(
        "batching",
        items_that_depend_on_their_batch(engine, images, outputs),
        0,
        "images whose outputs depend on their batch",
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


def second_look(card: ModelCard, images: np.ndarray, engine: Engine, bundle: Path) -> Finding:
    """Compare the answers to requests with image files, alone and together, as the handler gives them."""
    policy = replace(card, second_look=replace(cast(SecondLook, card.second_look), below=1.0))  # unsure of all of them
    classifier = Classifier(policy, engine, Reference.load(bundle / novelty.FILE_NAME))
    requests = [RawRequest("", {"body": _png(image)}, {}) for image in images]
    together = batch.answer(classifier, requests, len(requests)).replies
    alone = [batch.answer(classifier, [request], 1).replies[0] for request in requests]
    differ = sum(
        one.content != other.content or not (_looked(one) and _looked(other))
        for one, other in zip(together, alone, strict=True)
    )
    return Finding("second look", differ, 0, "images whose second look is missing or depends on their batch")


def _looked(reply: Reply) -> bool:
    """Return whether an image had its second look; one of probability 1 needs none."""
    (classification,) = reply.classifications
    return classification.second_look or float(classification.probabilities.max()) >= 1


def _png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def confident_flips(expected: np.ndarray, served: np.ndarray) -> int:
    """Count the rows of (B, C) whose best label changed although it led by SURE_LEAD or more."""
    first, second = np.sort(expected, axis=1)[:, ::-1][:, :2].T
    return int(((expected.argmax(1) != served.argmax(1)) & (first - second >= SURE_LEAD)).sum())


def items_that_depend_on_their_batch(engine: Engine, images: np.ndarray, outputs: Outputs) -> int:
    """Count the images (B, S, S, 3) whose outputs, alone or in another batch, differ from ``outputs`` in any bit."""
    turned = engine.run(np.ascontiguousarray(images[::-1]))
    alone = [engine.run(image[None]) for image in images]
    last = len(images) - 1
    same = [
        _same(_row(outputs, index), _row(turned, last - index)) and _same(_row(outputs, index), _row(alone[index], 0))
        for index in range(len(images))
    ]
    return same.count(False)


def _softmax(logits: np.ndarray, temperature: float) -> np.ndarray:
    return np.stack([softmax(row / temperature) for row in logits])


def _row(outputs: Outputs, index: int) -> list[np.ndarray]:
    rows = [outputs.logits[index], outputs.class_maps[index], outputs.embedding[index]]
    return rows if outputs.part_maps is None else [*rows, outputs.part_maps[index]]


def _same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def _golden_drift(stored: list[list[dict[str, object]]], probability: np.ndarray, card: ModelCard) -> float:
    if len(stored) != len(probability):
        raise BundleError(f"golden.json has outputs of {len(stored)} images, not of {len(probability)}")
    index = {label: number for number, label in enumerate(card.labels)}
    return max(
        abs(float(row[index[str(entry["label"])]]) - float(str(entry["probability"])))
        for row, entries in zip(probability, stored, strict=True)
        for entry in entries
    )


def _largest(difference: np.ndarray) -> float:
    return float(np.abs(difference).max())
