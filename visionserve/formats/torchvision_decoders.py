"""torchvision's JPEG and WebP decoders: the libraries and the pixels of Pillow's, in less memory and time."""

import functools
import importlib.util
from pathlib import Path
from typing import Literal

import numpy as np
import torch

_AS_IT_IS, _AS_RGB = 0, 3  # torchvision.io.ImageReadMode


def decode_jpeg(file: bytes | bytearray, size: tuple[int, int]) -> np.ndarray:
    """Decode a whole JPEG, grey or in colour, of (width, height), to (H, W, 3) uint8; a truncated one is an error."""
    return _decode("decode_jpeg", file, size, _AS_RGB, False)


def planes_of_jpeg(encoded: torch.Tensor) -> torch.Tensor:
    """Decode the bytes of a JPEG, (N,) uint8, to (3, H, W) uint8."""
    planes: torch.Tensor = _operators().decode_jpeg(encoded, _AS_RGB, False)
    return planes


def planes_of_jpegs_on_gpu(encoded: list[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """Decode JPEGs, each (N,) uint8 on the CPU, by nvJPEG to (3, H, W) uint8 on the GPU.

    Raises:
        RuntimeError: This torchvision was built without nvJPEG, or one of the files does not decode.
    """
    planes: list[torch.Tensor] = _operators().decode_jpegs_cuda(encoded, _AS_RGB, device)
    return planes


def decode_webp(file: bytes | bytearray, size: tuple[int, int], *, opaque: bool) -> np.ndarray:
    """Decode a WebP of one frame to (H, W, 3) uint8, or (H, W, 4) where it is not opaque."""
    return _decode("decode_webp", file, size, _AS_RGB if opaque else _AS_IT_IS)


def _decode(
    name: Literal["decode_jpeg", "decode_webp"], file: bytes | bytearray, size: tuple[int, int], *arguments: object
) -> np.ndarray:
    writable = file if isinstance(file, bytearray) else bytearray(file)  # torch warns of read-only buffers
    encoded = torch.frombuffer(writable, dtype=torch.uint8)
    planes = getattr(_operators(), name)(encoded, *arguments)  # (3 or 4, H, W), a view of H x W x 3 or 4
    pixels: np.ndarray = np.ascontiguousarray(planes.numpy().transpose(1, 2, 0))
    # Two parsers, two opinions: the limits were checked against the other parser's size.
    if pixels.shape[1::-1] != size:
        raise ValueError(f"the header says {size}, the decoder {pixels.shape}")
    return pixels


@functools.cache
def _operators() -> torch._ops._OpNamespace:
    """Return torchvision's decoders, loaded from their library file.

    Importing torchvision for it would cost every worker 3.5 s and 160 MB, for networks and transforms that serving
    does not use; and torchvision.io.decode_jpeg warns only that it will move to TorchCodec.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ImportError("torchvision is not installed")
    library = next(Path(spec.origin).parent.glob("image*.so"))
    torch.ops.load_library(library)  # type: ignore[no-untyped-call]
    return torch.ops.image
