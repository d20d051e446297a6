"""Contenders: what a comparison compares: a bundle's network in one precision and at one input, as an ONNX file."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from training.export.onnx import export
from training.networks import load_network, multiplications
from visionserve import engines
from visionserve.engines import Engine
from visionserve.errors import BundleError
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import Device, ModelCard

Precision = Literal["int8", "fp32", "fp16", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("int8", "fp32", "fp16", "bf16")


@dataclass(frozen=True)
class Contender:
    """One network in one precision, as an ONNX file."""

    name: str
    precision: Precision
    card: ModelCard
    file: Path
    operations: int

    def engine(self, threads: int) -> Engine:
        """Return the engine that runs it."""
        if self.precision == "bf16":
            return _InBf16(self.file, threads)
        return engines.load(self.file, threads=threads)


def contenders(bundle: Path, precisions: tuple[Precision, ...], folder: Path) -> list[Contender]:
    """Return a bundle's network in each precision; those that it does not hold are exported to ``folder``.

    ``fp16`` keeps the weights in half precision and, on a CPU, computes in fp32; ``bf16`` is the fp32 file computed in
    bf16, which OpenVINO does where the processor can.
    """
    card, network = ModelCard.load(bundle / CARD), load_network(bundle)
    work = multiplications(network, card.input.size)
    files: dict[Precision, Path] = {"int8": bundle / card.model}
    for precision in precisions:
        if precision != "int8":
            files[precision] = folder / f"{bundle.name}.{precision}.onnx"
            export(network, card.input, files[precision], half=precision == "fp16")
    return [Contender(bundle.name, precision, card, files[precision], work) for precision in precisions]


def resized(bundle: Path, pictures: Sequence[tuple[int, float]], folder: Path) -> list[Contender]:
    """Return a bundle's fp32 network at other inputs, (size in pixels, crop) each: what fewer pixels alone cost."""
    card, network = ModelCard.load(bundle / CARD), load_network(bundle)
    found = []
    for size, crop in pictures:
        picture = replace(card.input, size=size, crop=crop)
        file = folder / f"{bundle.name}.{size}-{crop:g}.onnx"
        export(network, picture, file)
        name = f"{bundle.name} at {size} px"
        work = multiplications(network, size)
        found.append(Contender(name, "fp32", replace(card, input=picture), file, work))
    return found


class _InBf16:
    """OpenVINO computing in bf16, which no engine of the service does: answers then differ by machine."""

    def __init__(self, file: Path, threads: int) -> None:
        engines.disable_telemetry()
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
        found = self._request.infer({engines.INPUT: images}, share_inputs=True)
        return engines.Outputs(*(found[name] for name in engines.OUTPUTS))
