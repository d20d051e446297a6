"""Engines: a batch of photographs through a network. ONNX Runtime executes; another runtime would be another Engine."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime

from visionserve.card import Device
from visionserve.errors import BundleError

INPUT = "images"
OUTPUTS = ["logits", "class_maps", "embedding"]
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_ERRORS_ONLY = 3


@dataclass(frozen=True)
class Outputs:
    """What a network says about a batch; float32.

    ``logits`` is (B, C); ``class_maps`` (B, C, h, w), whose mean over the places are the logits; ``embedding`` (B, D).
    """

    logits: np.ndarray
    class_maps: np.ndarray
    embedding: np.ndarray


class Engine(Protocol):
    """Runs batches. Every item's outputs are the same to the bit whatever else is in its batch."""

    device: Device

    def run(self, images: np.ndarray) -> Outputs:
        """Return the outputs of uint8 RGB images (B, S, S, 3)."""
        ...


class OnnxEngine:
    """ONNX Runtime on a CPU (int8 or fp32 files) or on CUDA (half precision files)."""

    def __init__(self, path: Path, device: Device = "cpu", threads: int = 1, gpu: int = 0) -> None:
        """Load an ONNX file.

        Args:
            threads: CPU threads that work on one batch.
            gpu: which CUDA device, where ``device`` is cuda.

        Raises:
            BundleError: no such file, not a network of ours, or the device is not there. Never falls back to a CPU.
        """
        self.device = device
        self._session = _session(path, device, threads, gpu)
        names = [output.name for output in self._session.get_outputs()]
        if [entry.name for entry in self._session.get_inputs()] != [INPUT] or names != OUTPUTS:
            raise BundleError(f"{path.name} must map {INPUT} to {', '.join(OUTPUTS)}; export it with this project")

    def run(self, images: np.ndarray) -> Outputs:
        """Return the outputs of uint8 RGB images (B, S, S, 3)."""
        return Outputs(*self._session.run(OUTPUTS, {INPUT: images}))


def _session(path: Path, device: Device, threads: int, gpu: int) -> onnxruntime.InferenceSession:
    provider = _PROVIDERS[device]
    if provider not in onnxruntime.get_available_providers():
        raise BundleError(f"this ONNX Runtime has no {provider}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    # Idle threads must not spin: they would take the cores from decoding and from the other workers.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings = [{"device_id": str(gpu)}] if device == "cuda" else [{}]
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=[provider], provider_options=settings)
    except Exception as error:  # ONNX Runtime's exceptions share no narrower base class
        raise BundleError(f"ONNX Runtime cannot load {path}: {error}") from error
    if provider not in session.get_providers():
        raise BundleError(f"{provider} did not start: no usable {device} device or its libraries are missing")
    return session
