"""Evaluation preprocessing, the only one: bytes -> decode -> central square -> size x size pixels.

Training's evaluation, calibration and serving all call `load`, so they cannot drift apart.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from visionserve.images import DEFAULT_LIMITS, Limits, decode

# A JPEG decoded at a reduced scale keeps at least twice the pixels needed. The antialiased resize does the rest and
# stays close to what a full decode gives. Measured on photos: 2.0 of 255 levels away at 1/4, 4.7 at 1/8.
_MARGIN = 2


@dataclass(frozen=True)
class Preprocessing:
    """The central square of ``crop`` times the shorter side, resized to ``size`` x ``size`` with antialiasing.

    Cropped first, then resized: so the fewest pixels are touched. Images smaller than that are enlarged.
    """

    size: int = 224
    crop: float = 0.875

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 < self.crop <= 1:
            raise ValueError(f"size must be positive and crop in (0, 1], not {self.size} and {self.crop}")

    @property
    def min_side(self) -> int:
        """The shorter side, in pixels, that a reduced decode must keep."""
        return _MARGIN * math.ceil(self.size / self.crop)

    def square(self, height: int, width: int) -> tuple[int, int, int]:
        """Return (top, left, side) of the square, in pixels, that is taken of an image of this size."""
        side = max(1, round(self.crop * min(height, width)))
        return (height - side) // 2, (width - side) // 2, side

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Turn (H, W, 3) uint8 into (size, size, 3) uint8, C-contiguous and writable."""
        return self.resized(image, *self.square(*image.shape[:2]))

    def resized(self, image: np.ndarray, top: int, left: int, side: int) -> np.ndarray:
        """Turn a square of (H, W, 3) uint8 into (size, size, 3) uint8, C-contiguous and writable."""
        # A copy: torch resizes pixels that lie together, channels last, in half the time, and refuses read-only ones.
        square = image[None, top : top + side, left : left + side].copy()  # (1, side, side, 3)
        pixels = np.empty((1, self.size, self.size, 3), np.uint8)
        # What interpolate(mode="bilinear", antialias=True) calls. Written in the order of the result it takes half the
        # time of planes that are interleaved afterwards. Each call of torch costs microseconds, so numpy makes the
        # views: (1, 3, side, side) and (1, 3, size, size).
        source, result = (torch.from_numpy(array.transpose(0, 3, 1, 2)) for array in (square, pixels))
        torch._C._nn._upsample_bilinear2d_aa(  # type: ignore[call-arg]  # the stub lacks `out`
            source, (self.size, self.size), False, None, None, out=result
        )
        resized: np.ndarray = pixels[0]
        return resized


def load(
    data: bytes | bytearray | memoryview, preprocessing: Preprocessing, limits: Limits = DEFAULT_LIMITS
) -> np.ndarray:
    """Decode and preprocess one image file to (size, size, 3) uint8; raises what `images.decode` raises."""
    return preprocessing(decode(data, limits=limits, min_side=preprocessing.min_side))


def load_closer(
    data: bytes | bytearray | memoryview,
    preprocessing: Preprocessing,
    zoom: float,
    point: tuple[float, float],
    limits: Limits = DEFAULT_LIMITS,
) -> np.ndarray:
    """Decode one image file and prepare a smaller square of it, (size, size, 3) uint8.

    Args:
        zoom: the side of this square as a share of the one that `load` takes.
        point: (x, y) of its centre, as shares of that one's side; it is moved where it would leave the image.
    """
    closer = replace(preprocessing, crop=preprocessing.crop * zoom)
    image = decode(data, limits=limits, min_side=closer.min_side)
    height, width = image.shape[:2]
    top, left, whole = preprocessing.square(height, width)
    side = closer.square(height, width)[2]
    x, y = left + point[0] * whole, top + point[1] * whole
    return closer.resized(image, _start(y, side, height), _start(x, side, width), side)


def _start(centre: float, side: int, length: int) -> int:
    return min(max(round(centre - side / 2), 0), length - side)
