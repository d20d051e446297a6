"""The torch engine: weights.safetensors in half precision on CUDA, a CUDA graph per batch size; on a CPU without.

    uint8 (n, S, S, 3) -> pinned buffer, padded to the next size of the ladder -> GPU -> graph -> pinned buffers -> [:n]

TorchServe's worker imports torch anyway, and torch brings CUDA: nothing else has to match the driver.

What a padded graph guarantees: an image's outputs are the same to the bit for every batch that is padded to the same
size, whatever its batch mates and the padding are, for no operation of the network mixes images. Between two sizes
cuDNN may choose other kernels, which round differently; LOGITS in training/export/gates.py bounds the difference.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visionserve import network, part_layer
from visionserve.engines import OUTPUTS, PART_MAPS, WEIGHTS, Outputs
from visionserve.errors import BundleError, Unavailable
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import Device, ModelCard

# A graph for each: a batch is padded to the next, at most half of it for nothing. Larger batches run in parts.
LADDER = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_WARM_UP_RUNS = 3  # cuDNN chooses its kernels before a graph is captured
_FULL = "The GPU's memory is exhausted: retry in a moment."

logger = logging.getLogger(__name__)
_Run = Callable[[int], tuple[Tensor, ...]]


class TorchEngine:
    """PyTorch on CUDA (half precision, CUDA graphs) or on a CPU (the same code without graphs)."""

    def __init__(
        self,
        folder: Path,
        device: Device = "cuda",
        threads: int = 1,
        gpu: int = 0,
        *,
        dtype: torch.dtype | None = None,
        largest: int = LADDER[-1],
    ) -> None:
        """Load the weights of a bundle or an unpacked archive.

        Args:
            folder: holds card.json, weights.safetensors, and parts.safetensors if the card names parts.
            threads: CPU threads that work on one batch; of the whole process, as torch has one pool.
            gpu: which CUDA device, where ``device`` is cuda.
            dtype: what the network computes in; by default float16 on CUDA and float32 on a CPU.
            largest: largest batch of one run.

        Raises:
            BundleError: no weights, weights of another network or of other parts, or no such device. Never falls back
                to a CPU.
        """
        card = ModelCard.load(folder / CARD)
        self.device: Device = device
        self.name = f"PyTorch {torch.__version__.partition('+')[0]}"
        self.largest = max(size for size in LADDER if size <= largest)
        target = _device(device, gpu)
        net = network.load(card.architecture, len(card.labels), folder / WEIGHTS)
        form = network.ExportForm(net, card.input.mean, card.input.std).eval()
        form = form.to(target, dtype or (torch.float16 if device == "cuda" else torch.float32))
        self._form = form.to(memory_format=torch.channels_last)
        layer = part_layer.load(folder, card)
        form.parts = None if layer is None else layer.to(target)
        if device == "cpu":
            torch.set_num_threads(threads)
        self._shape = (card.input.size, card.input.size, 3)
        self._target = target
        self._lock = threading.Lock()  # the buffers are shared
        with self._memory_guard():
            self._images = torch.zeros((self.largest, *self._shape), dtype=torch.uint8, pin_memory=device == "cuda")
        self._runs: dict[int, _Run] = {}
        self._pool: Any = None  # the graphs' memory: one runs at a time, so they share it
        self._stream = torch.cuda.Stream(target) if device == "cuda" else None  # type: ignore[no-untyped-call]

    def run(self, images: np.ndarray) -> Outputs:
        """Return the outputs of uint8 RGB images (B, S, S, 3); the first batch of a size takes longer.

        Raises:
            Unavailable: the GPU's memory is exhausted. Batches are at most half as large from then on.
        """
        with self._lock:
            starts = range(0, len(images), self.largest)
            parts = [self._run_part(images[start : start + self.largest]) for start in starts]
        if len(parts) == 1:
            return parts[0]
        fields = OUTPUTS if parts[0].part_maps is None else [*OUTPUTS, PART_MAPS]
        return Outputs(*(np.concatenate([getattr(part, name) for part in parts]) for name in fields))

    def _run_part(self, images: np.ndarray) -> Outputs:
        count = len(images)
        size = next(step for step in LADDER if step >= count)
        with self._memory_guard(), torch.inference_mode():
            if size not in self._runs:
                self._runs[size] = self._eager if self._stream is None else self._capture(size, self._stream)
            self._images[:count].copy_(torch.from_numpy(images))
            # Copied: the buffers are written again by the next batch.
            return Outputs(*(output[:count].numpy().copy() for output in self._runs[size](size)))

    def _eager(self, size: int) -> tuple[Tensor, ...]:
        """Run on the CPU: the padded batch, without a graph."""
        return self._compute(self._images[:size])

    def _compute(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(output.float() for output in self._form(images))  # those of Outputs

    def _capture(self, size: int, stream: torch.cuda.Stream) -> _Run:
        """Return what runs batches of ``size`` by a CUDA graph: the copies to and from the GPU are outside of it."""
        static = torch.zeros((size, *self._shape), dtype=torch.uint8, device=self._target)
        stream.wait_stream(torch.cuda.current_stream(self._target))
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP_RUNS):
                outputs = self._compute(static)
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=stream):
            outputs = self._compute(static)
        self._pool = self._pool or graph.pool()
        pinned = tuple(torch.empty(output.shape, dtype=output.dtype, pin_memory=True) for output in outputs)

        def replay(size: int) -> tuple[Tensor, ...]:
            with torch.cuda.stream(stream):
                static.copy_(self._images[:size], non_blocking=True)
                graph.replay()
                for target, source in zip(pinned, outputs, strict=True):
                    target.copy_(source, non_blocking=True)
            stream.synchronize()
            return pinned

        return replay

    @contextlib.contextmanager
    def _memory_guard(self) -> Iterator[None]:
        """Turn exhausted memory into Unavailable and halve the largest batch: a smaller one may still fit."""
        try:
            yield
        except torch.OutOfMemoryError as error:
            self.largest = max(1, self.largest // 2)
            self._runs = {size: run for size, run in self._runs.items() if size <= self.largest}
            torch.cuda.empty_cache()
            logger.error("the GPU's memory is exhausted; batches are at most %d from now on: %s", self.largest, error)
            raise Unavailable(_FULL) from error


def _device(device: Device, gpu: int) -> torch.device:
    if device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise BundleError("CUDA is not available to torch: no usable GPU or driver")
    if gpu >= torch.cuda.device_count():
        raise BundleError(f"CUDA device {gpu} does not exist: {torch.cuda.device_count()} are visible")
    return torch.device("cuda", gpu)
