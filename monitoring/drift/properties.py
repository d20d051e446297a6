"""Properties of an image that need no network: brightness, contrast, sharpness, resolution.

Computed from the pixels that the network sees, so a large image costs no more than a small one.
"""

from dataclasses import dataclass

import numpy as np

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, the weights that JPEG uses


@dataclass(frozen=True)
class Properties:
    """The properties of one image.

    Attributes:
        brightness: mean luma, 0-255.
        contrast: standard deviation of luma.
        sharpness: standard deviation of the luma's Laplacian as a multiple of the contrast, so that a pale image
            is not taken for a blurred one.
        resolution: the image's own pixels per pixel of the network's view, at most 1: below it, the view was
            enlarged. Larger images all look alike to the network.
    """

    brightness: float
    contrast: float
    sharpness: float
    resolution: float


def measure(prepared: np.ndarray, shorter_side: int, crop: float) -> Properties:
    """Measure a prepared image.

    Args:
        prepared: (S, S, 3) uint8, RGB: what the network sees.
        shorter_side: of the image that it was cut from, in pixels.
        crop: the share of that side which the network sees.
    """
    luma = prepared.astype(np.float32) @ _LUMA  # (S, S)
    around = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:]
    laplacian = 4 * luma[1:-1, 1:-1] - around
    contrast = float(luma.std())
    sharpness = float(laplacian.std()) / max(contrast, 1.0)  # below one level there is nothing to be sharp
    resolution = min(1.0, crop * shorter_side / len(prepared))
    return Properties(float(luma.mean()), contrast, sharpness, resolution)
