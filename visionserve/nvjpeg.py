"""nvJPEG: a batch's plain JPEGs are decoded, turned upright, cut and resized on the GPU; the rest goes the CPU's way.

    bytes -> header -> plain? -> nvJPEG, all of a batch at once -> upright -> central square -> (S, S, 3) uint8

Every pixel is decoded, as in the reference decode: no reduced scale. `python -m loadtests gpu` compares its rate and
its labels with the CPU's. On a CPU torchvision's decoder takes nvJPEG's place: tests cover all but nvJPEG itself.
"""

import logging
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from visionserve import images
from visionserve.errors import BundleError
from visionserve.formats import torchvision_decoders
from visionserve.images import Limits
from visionserve.transforms import Preprocessing

# Larger ones take a GPU's memory, and the CPU decodes them at a reduced scale.
MAX_PIXELS = 8_000_000
# Decoded at once, 192 MB: a batch may hold 16 images a request.
MAX_PIXELS_AT_ONCE = 64_000_000

logger = logging.getLogger(__name__)


class JpegDecoder:
    """Decodes and preprocesses the plain JPEGs among the images of a batch on one device."""

    def __init__(self, preprocessing: Preprocessing, limits: Limits, device: torch.device) -> None:
        self._preprocessing = preprocessing
        self._limits = limits
        self._device = device

    def check(self, jpeg: bytes) -> None:
        """Decode an image that must succeed; BundleError when this torchvision or this GPU has no nvJPEG."""
        try:
            self._decode([jpeg])
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise BundleError(f"nvJPEG does not work here ({reason}): set handler.decoder to cpu") from error

    def __call__(self, files: Sequence[bytes | bytearray]) -> list[np.ndarray | None]:
        """Return (S, S, 3) uint8 for each plain JPEG, None for what `transforms.load` must decode, or refuse."""
        headers = [images.plain_jpeg(file, self._limits, MAX_PIXELS) for file in files]
        plain = [(index, *header) for index, header in enumerate(headers) if header is not None]
        prepared: list[np.ndarray | None] = [None] * len(files)
        with torch.inference_mode():
            for part in _parts(plain):
                decoded = self._decode_what_decodes([files[index] for index, _, _ in part])
                for (index, turn, _), planes in zip(part, decoded, strict=True):
                    if planes is not None:
                        prepared[index] = self._preprocess(planes, turn)
        return prepared

    def _decode_what_decodes(self, files: list[bytes | bytearray]) -> Sequence[Tensor | None]:
        """Decode all files at once; where one of them fails, each alone."""
        if not files:
            return []
        try:
            return self._decode(files)
        except RuntimeError as error:  # it names no file and returns none of them
            if len(files) == 1:
                logger.info("nvJPEG left an image to the CPU: %s", str(error).splitlines()[0])
                return [None]
        return [planes for file in files for planes in self._decode_what_decodes([file])]

    def _decode(self, files: list[bytes | bytearray]) -> list[Tensor]:
        """Return (3, H, W) uint8 on the device for each file."""
        encoded = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
        if self._device.type == "cpu":
            return [torchvision_decoders.planes_of_jpeg(tensor) for tensor in encoded]
        # It decodes on a stream of its own into memory that work still queued on another may use, and returns before it
        # has ended (https://github.com/pytorch/vision/issues/9606).
        torch.cuda.synchronize(self._device)
        decoded = torchvision_decoders.planes_of_jpegs_on_gpu(encoded, self._device)
        torch.cuda.synchronize(self._device)
        return decoded

    def _preprocess(self, planes: Tensor, turn: int) -> np.ndarray:
        if turn >= 5:
            planes = planes.transpose(1, 2)
        flipped = [axis for axis, turns in ((1, (3, 4, 7, 8)), (2, (2, 3, 6, 7))) if turn in turns]
        planes = planes.flip(flipped) if flipped else planes
        top, left, side = self._preprocessing.square(*planes.shape[1:])
        square = planes[None, :, top : top + side, left : left + side].float()  # CUDA resizes no uint8
        size = self._preprocessing.size
        resized = interpolate(square, (size, size), mode="bilinear", antialias=True)[0]
        pixels: np.ndarray = resized.round_().clamp_(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()
        return pixels


def _parts(plain: list[tuple[int, int, int]]) -> Iterator[list[tuple[int, int, int]]]:
    """Divide (index, orientation, pixels) into runs of at most MAX_PIXELS_AT_ONCE."""
    part: list[tuple[int, int, int]] = []
    held = 0
    for entry in plain:
        if part and held + entry[2] > MAX_PIXELS_AT_ONCE:
            yield part
            part, held = [], 0
        part.append(entry)
        held += entry[2]
    if part:
        yield part
