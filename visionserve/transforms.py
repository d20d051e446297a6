"""The only evaluation preprocessing there is: bytes -> decode -> central square -> size x size pixels.

Training's evaluation, calibration and serving all call `load`, so they cannot drift apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torchvision.transforms.v2 import functional

from visionserve.images import Limits, decode


@dataclass(frozen=True)
class Preprocessing:
    """The central square of `crop` times the shorter side, resized to `size` x `size` with antialiasing.

    Cropping first leaves the fewest pixels to resize.
    """

    size: int = 224
    crop: float = 0.875

    @property
    def min_side(self) -> int:
        """The shorter side, in pixels, below which the square would have to be enlarged."""
        return math.ceil(self.size / self.crop)

    def __call__(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Turn (H, W, 3) uint8 into (size, size, 3) uint8, C-contiguous."""
        height, width = image.shape[:2]
        side = max(1, round(self.crop * min(height, width)))
        top, left = (height - side) // 2, (width - side) // 2
        square = torch.from_numpy(image[top : top + side, left : left + side])  # (side, side, 3)
        resized = functional.resize(square.permute(2, 0, 1), [self.size, self.size], antialias=True)
        return np.ascontiguousarray(resized.permute(1, 2, 0).numpy())


def load(data: bytes, preprocessing: Preprocessing, limits: Limits = Limits()) -> npt.NDArray[np.uint8]:
    """Decode and preprocess one image file; raises what `decode` raises."""
    return preprocessing(decode(data, limits=limits, min_side=preprocessing.min_side))
