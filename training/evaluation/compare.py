"""Compare: bundles and precisions by accuracy, work, size and speed on this machine.

Bundles of one manifest are compared on its validation and test images. Bundles of different manifests, an old version
and a new one, are compared on the test images that none of them was trained, calibrated or selected on. Speed is that
of the engine alone on synthetic images, in rounds that visit every network in turn, so that a busy moment affects all
of them.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from training.data.datamodule import load_served
from training.data.manifest import FILE_NAME as MANIFEST
from training.data.manifest import Manifest, Row, hash_file, known_groups, load, seen_by
from training.evaluation.evaluate import batches
from training.export.onnx import export
from training.networks import load_network, multiplications, synthetic_images
from visionserve import engines
from visionserve.engines import Engine
from visionserve.errors import BundleError
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import INT8, Device, ModelCard
from visionserve.transforms import Preprocessing

Precision = Literal["int8", "fp32", "fp16", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("int8", "fp32", "fp16", "bf16")


@dataclass(frozen=True)
class Candidate:
    """One network in one precision, as an ONNX file."""

    name: str
    precision: Precision
    card: ModelCard
    file: Path
    multiplications: int

    def engine(self, threads: int) -> Engine:
        """Return the engine that runs it."""
        if self.precision == "bf16":
            return _Bf16Engine(self.file, threads)
        return engines.load(self.file, threads=threads)


@dataclass(frozen=True)
class Images:
    """The labelled images of a comparison: rows by split, found below ``root``.

    ``explanation`` says which they are, ``left_out`` how many test images of the bundles could not be used, by reason.
    """

    root: Path
    rows: Mapping[str, Sequence[Row]]
    explanation: str = ""
    left_out: Mapping[str, int] | None = None

    def groups(self, split: str) -> tuple[str, ...]:
        """Return what each image of a split comes from; empty where that is not known of every one."""
        return known_groups(self.rows[split])


@dataclass(frozen=True)
class Measured:
    """A candidate's result: per split whether each image's label was predicted, and the images/s of every round."""

    candidate: Candidate
    right: dict[str, np.ndarray]
    rates: tuple[float, ...] = ()


def candidates(
    bundle: Path, precisions: tuple[Precision, ...], folder: Path, name: str | None = None
) -> list[Candidate]:
    """Return a bundle's network in each precision; those that it does not hold are exported to ``folder``.

    ``fp16`` keeps the weights in half precision and, on a CPU, computes in fp32; ``bf16`` is the fp32 file computed in
    bf16, which OpenVINO does where the processor can.
    """
    card, network = ModelCard.load(bundle / CARD), load_network(bundle)
    work = multiplications(network, card.input.size)
    stored: Precision = "int8" if card.model == INT8 else "fp32"
    files: dict[Precision, Path] = {stored: bundle / card.model}
    # A bundle of few images may hold no int8: it is compared as it is served.
    precisions = tuple(dict.fromkeys(stored if precision == "int8" else precision for precision in precisions))
    for precision in precisions:
        if precision != stored:
            files[precision] = folder / f"{bundle.name}.{precision}.onnx"
            export(network, card.input, files[precision], half=precision == "fp16")
    return [Candidate(name or bundle.name, precision, card, files[precision], work) for precision in precisions]


def resized(bundle: Path, inputs: Sequence[tuple[int, float]], folder: Path) -> list[Candidate]:
    """Return a bundle's fp32 network at other inputs, (size in pixels, crop) each: what fewer pixels alone cost."""
    card, network = ModelCard.load(bundle / CARD), load_network(bundle)
    result = []
    for size, crop in inputs:
        card_input = replace(card.input, size=size, crop=crop)
        file = folder / f"{bundle.name}.{size}-{crop:g}.onnx"
        export(network, card_input, file)
        work = multiplications(network, size)
        result.append(Candidate(f"{bundle.name} at {size} px", "fp32", replace(card, input=card_input), file, work))
    return result


def names(bundles: Sequence[Path]) -> list[str]:
    """Return a name for each bundle: its folder, with the version or the path where folders have the same name."""
    folders = [bundle.name for bundle in bundles]
    versioned = [f"{bundle.name} {ModelCard.load(bundle / CARD).version}" for bundle in bundles]
    for choice in (folders, versioned):
        if len(set(choice)) == len(choice):
            return choice
    return [str(bundle) for bundle in bundles]


def images_of(bundles: Sequence[Path], root: Path) -> Images:
    """Return the images on which bundles can be compared fairly.

    Raises:
        BundleError: a file has changed, or the bundles have no test image that all of them can be measured on.
    """
    manifests = [load(bundle / MANIFEST, root, ModelCard.load(bundle / CARD).labels) for bundle in bundles]
    first = manifests[0]
    if all(manifest.digest == first.digest for manifest in manifests):
        first.verify()
        return Images(root, {split: [first.rows[i] for i in first.part(split)] for split in ("val", "test")})
    return _held_out(bundles, manifests, root)


def correctness(candidate: Candidate, images: Images, threads: int) -> dict[str, np.ndarray]:
    """Return per split whether each image's label was predicted, (N,) bool; a label the network lacks never is."""
    engine, labels = candidate.engine(threads), candidate.card.labels
    preprocessing = Preprocessing(candidate.card.input.size, candidate.card.input.crop)
    right = {}
    for split, rows in images.rows.items():
        prepared = load_served([images.root / row.path for row in rows], preprocessing)
        indices = np.concatenate([engine.run(batch).logits.argmax(1) for batch in batches(prepared, 8)])
        right[split] = np.array([labels[index] == row.label for index, row in zip(indices, rows, strict=True)])
    return right


def race(
    entrants: Sequence[Candidate], rounds: int, seconds: float, *, batch: int = 4, threads: int = 1
) -> list[tuple[float, ...]]:
    """Return the images/s of every candidate in each round; a round gives each ``seconds`` in turn."""
    jobs = [(entrant.engine(threads), synthetic_images(entrant.card.input.size, batch)) for entrant in entrants]
    for engine, images in jobs:
        engine.run(images)  # compiles for the size of the batch
    rates = [[_rate(engine, images, seconds) for engine, images in jobs] for _ in range(rounds)]
    return list(zip(*rates, strict=True)) if rates else [() for _ in entrants]


def _held_out(bundles: Sequence[Path], manifests: Sequence[Manifest], root: Path) -> Images:
    """Return the test images of any bundle that none of them, its start or its teacher has seen, by content."""
    used = set().union(*(seen_by(bundle) for bundle in bundles))
    tests = [row for manifest in manifests for row in manifest.rows if row.split == "test"]
    shared = set(manifests[0].labels).intersection(*(manifest.labels for manifest in manifests[1:]))
    unseen = {row.sha256: row for row in reversed(tests) if row.sha256 not in used}
    comparable = [row for row in unseen.values() if row.label in shared]
    rows = [row for row in comparable if (root / row.path).is_file() and hash_file(root / row.path) == row.sha256]
    if not rows:
        raise BundleError(
            "these bundles have different manifests and no test image in common that none was trained on: give a "
            "--data.root that holds the test images of both, or evaluate each by itself"
        )
    left_out = {
        "were in the training or validation images of one of them": len({row.sha256 for row in tests} & used),
        "have a label that not all of them know": len(unseen) - len(comparable),
        f"are missing or changed below {root}": len(comparable) - len(rows),
    }
    explanation = (
        f"The bundles have different manifests. They are compared on the {len(rows)} test images that none of them was "
        "trained or validated on, by content: a copy at another size or quality is not recognised."
    )
    return Images(root, {"test": sorted(rows, key=lambda row: row.path)}, explanation, left_out)


def _rate(engine: Engine, images: np.ndarray, seconds: float) -> float:
    done, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds:
        engine.run(images)
        done += len(images)
    return done / passed


class _Bf16Engine:
    """OpenVINO computing in bf16, which no engine of the service does: outputs then differ by machine."""

    def __init__(self, file: Path, threads: int) -> None:
        try:
            import openvino
        except ImportError as error:
            raise BundleError("bf16 is OpenVINO's, which is not installed; choose other --precisions") from error
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": "bf16",
        }
        self.device: Device = "cpu"
        self.name = "OpenVINO, bf16"
        self._request = openvino.Core().compile_model(file, "CPU", settings).create_infer_request()

    def run(self, images: np.ndarray) -> engines.Outputs:
        outputs = self._request.infer({engines.INPUT: images}, share_inputs=True)
        return engines.Outputs(*(outputs[name] for name in engines.OUTPUTS))
