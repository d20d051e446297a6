"""Engines: run a batch of images through a network, on a CPU or on CUDA.

runtime       file                  device      `auto` takes it
openvino      ONNX, int8 or fp32    cpu         on a CPU, where it is installed: it uses the matrix units (AMX)
torch         weights.safetensors   cuda, cpu   on CUDA, where the weights lie beside the ONNX file
onnxruntime   ONNX, any             cpu, cuda   otherwise
tensorrt      ONNX, half            cuda        never: ONNX Runtime with TensorRT, compiled at each start

Each is imported when it is needed.
"""

import contextlib
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np

from visionserve.errors import BundleError
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import Device, ModelCard

Runtime = Literal["auto", "openvino", "onnxruntime", "tensorrt", "torch"]
WEIGHTS = "weights.safetensors"

INPUT = "images"
OUTPUTS = ["logits", "class_maps", "embedding"]
PART_MAPS = "part_maps"  # a further output, of models that know parts
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_TENSORRT = "TensorrtExecutionProvider"
_TENSORRT_LARGEST = 256  # TensorRT compiles for a range of batch sizes
_ERRORS_ONLY = 3
# Batches up to here get a network compiled for their size: 4-7 % faster than one for any size, 20 MB and 0.2 s each.
_LARGEST_OF_ITS_OWN = 8
_ANY_SIZE = -1


@dataclass(frozen=True)
class Outputs:
    """What a network computes for a batch; float32.

    ``logits`` is (B, C); ``class_maps`` (B, C, h, w), whose mean over h and w are the logits; ``embedding`` (B, D);
    ``part_maps`` (B, P, h, w), logits of the card's parts at each place, where the file has them.
    """

    logits: np.ndarray
    class_maps: np.ndarray
    embedding: np.ndarray
    part_maps: np.ndarray | None = None


class Engine(Protocol):
    """Runs batches. Every item's outputs are the same to the bit whatever else is in its batch.

    torch guarantees it among batches that are padded to the same size, see torch_engine.py.
    """

    device: Device
    name: str

    def run(self, images: np.ndarray) -> Outputs:
        """Return the outputs of uint8 RGB images (B, S, S, 3)."""
        ...


def disable_telemetry() -> None:
    """Keep both runtimes from reporting that they are used; call it before either is imported.

    ONNX Runtime keeps an identifier and a queue below ~/.cache/Microsoft and uploads it (https://github.com/microsoft/
    onnxruntime/pull/27379). OpenVINO forks the process to post to an analytics service, and leaves an identifier in
    ~/intel; None makes the import of its telemetry fail, for which it brings a stand-in.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


def load(path: Path, device: Device = "cpu", threads: int = 1, gpu: int = 0, runtime: Runtime = "auto") -> Engine:
    """Return an engine for an ONNX file, or for the weights beside it; see the engines for the arguments.

    Raises:
        BundleError: the file is missing or of another project, or the device or runtime is not available.
    """
    if runtime not in get_args(Runtime):
        raise BundleError(f"runtime must be one of {', '.join(get_args(Runtime))}, not {runtime!r}")
    if runtime == "torch" or (runtime == "auto" and device == "cuda" and path.with_name(WEIGHTS).is_file()):
        from visionserve.torch_engine import TorchEngine  # torchvision's networks take seconds to import

        return TorchEngine(path.parent, device, threads, gpu)
    if runtime == "openvino" or (runtime == "auto" and device == "cpu" and importlib.util.find_spec("openvino")):
        return OpenVinoEngine(path, device, threads)
    return OnnxEngine(path, device, threads, gpu, tensorrt=runtime == "tensorrt")


class OpenVinoEngine:
    """OpenVINO on a CPU: int8 or fp32 files."""

    def __init__(self, path: Path, device: Device = "cpu", threads: int = 1) -> None:
        """Load an ONNX file; ``threads`` CPU threads work on one batch.

        Raises:
            BundleError: the file is missing or of another project, OpenVINO is not installed, or ``device`` is not cpu.
        """
        if device != "cpu":
            raise BundleError(f"OpenVINO serves on the CPU here, not on {device}")
        self.device: Device = device
        self._compile, self._outputs, self.name = _openvino_compiler(path, threads)
        self._requests = {1: self._compile(1)}
        self._lock = threading.Lock()  # a request holds its buffers; ONNX Runtime needs no lock

    def run(self, images: np.ndarray) -> Outputs:
        """Return the outputs of uint8 RGB images (B, S, S, 3); the first batch of a size takes longer."""
        size = len(images) if len(images) <= _LARGEST_OF_ITS_OWN else _ANY_SIZE
        with self._lock:
            if size not in self._requests:
                self._requests[size] = self._compile(size)
            outputs = self._requests[size].infer({INPUT: images}, share_inputs=True)
            return Outputs(*(outputs[name] for name in self._outputs))


class OnnxEngine:
    """ONNX Runtime on a CPU (int8 or fp32 files) or on CUDA (half precision files)."""

    def __init__(
        self, path: Path, device: Device = "cpu", threads: int = 1, gpu: int = 0, *, tensorrt: bool = False
    ) -> None:
        """Load an ONNX file.

        Args:
            threads: CPU threads that work on one batch.
            gpu: which CUDA device, where ``device`` is cuda.
            tensorrt: compile the network with TensorRT, which must be installed; on CUDA only.

        Raises:
            BundleError: the file is missing or of another project, or the device is not available. Never falls back.
        """
        self.device = device
        onnxruntime = _onnxruntime()
        self.name = f"ONNX Runtime {onnxruntime.__version__}{', TensorRT' if tensorrt else ''}"
        providers = _providers(path, device, gpu, tensorrt)
        self._session = _session(onnxruntime, path, providers, threads)
        inputs = [entry.name for entry in self._session.get_inputs()]
        self._outputs = [output.name for output in self._session.get_outputs()]
        _check_names(path, inputs, self._outputs)

    def run(self, images: np.ndarray) -> Outputs:
        """Return the outputs of uint8 RGB images (B, S, S, 3)."""
        return Outputs(*self._session.run(self._outputs, {INPUT: images}))


def _check_names(path: Path, inputs: list[str], outputs: list[str]) -> None:
    if inputs != [INPUT] or outputs not in (OUTPUTS, [*OUTPUTS, PART_MAPS]):
        raise BundleError(f"{path.name} must map {INPUT} to {', '.join(OUTPUTS)}; export it with this project")


def _openvino_compiler(path: Path, threads: int) -> tuple[Callable[[int], Any], list[str], str]:
    """Return what compiles the network for a batch size, to an inference request, the outputs' names and its own."""
    disable_telemetry()
    try:
        import openvino  # optional, and half a second to import
    except ImportError as error:
        raise BundleError("OpenVINO is not installed") from error
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        # Pinned, the engines of two workers would choose the same core.
        "ENABLE_CPU_PINNING": False,
        # Otherwise what the file computes in fp32 runs in bf16 where the processor can, and answers differ by machine.
        "INFERENCE_PRECISION_HINT": "f32",
    }
    core = openvino.Core()
    with _load_errors(path):
        network = core.read_model(path)
        inputs, outputs = ([port.get_any_name() for port in ports] for ports in (network.inputs, network.outputs))
        _check_names(path, inputs, outputs)

    def compile_for(size: int) -> Any:
        sized = network.clone()
        with _load_errors(path):
            sized.reshape({INPUT: [size, *network.input(INPUT).partial_shape[1:]]})
            return core.compile_model(sized, "CPU", settings).create_infer_request()

    return compile_for, outputs, f"OpenVINO {_release(openvino)}"


@contextlib.contextmanager
def _load_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise BundleError(f"OpenVINO cannot load {path}: {error}") from error


def _release(openvino: Any) -> str:
    """Return the version without the build, "2026.4.1"."""
    return str(openvino.__version__).split("-", maxsplit=1)[0]


def _onnxruntime() -> Any:
    disable_telemetry()
    import onnxruntime  # not needed where OpenVINO serves

    return onnxruntime


def _providers(path: Path, device: Device, gpu: int, tensorrt: bool) -> dict[str, dict[str, str]]:
    """Return the settings of the execution providers that must start, by name."""
    providers = {_PROVIDERS[device]: {"device_id": str(gpu)} if device == "cuda" else {}}
    if not tensorrt:
        return providers
    if device != "cuda":
        raise BundleError(f"TensorRT computes on a GPU, not on the {device}")
    side = ModelCard.load(path.with_name(CARD)).input.size
    shape = f"{INPUT}:{{}}x{side}x{side}x3"
    settings = {
        "device_id": str(gpu),
        "trt_fp16_enable": "1",
        "trt_profile_min_shapes": shape.format(1),
        "trt_profile_opt_shapes": shape.format(_TENSORRT_LARGEST // 8),
        "trt_profile_max_shapes": shape.format(_TENSORRT_LARGEST),
    }
    return {_TENSORRT: settings} | providers


def _session(onnxruntime: Any, path: Path, providers: dict[str, dict[str, str]], threads: int) -> Any:
    available = onnxruntime.get_available_providers()
    if absent := [provider for provider in providers if provider not in available]:
        raise BundleError(f"the installed ONNX Runtime lacks {', '.join(absent)}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    # Idle threads must not spin: they would take the cores from decoding and from the other workers.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    names, settings = list(providers), list(providers.values())
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=names, provider_options=settings)
    except Exception as error:  # ONNX Runtime's exceptions share no narrower base class
        raise BundleError(f"ONNX Runtime cannot load {path}: {error}") from error
    if stopped := [provider for provider in names if provider not in session.get_providers()]:
        raise BundleError(f"{', '.join(stopped)} did not start: the device or its libraries are missing")
    return session
