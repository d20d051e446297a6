"""Conversions, lengths and convolution that the corruptions share."""

import numpy as np
from PIL import Image
from scipy.signal import fftconvolve

REFERENCE = 224  # the strengths' lengths are in pixels of an image with this shorter side


def to_unit(image: np.ndarray) -> np.ndarray:
    """Turn uint8 into float32 0-1."""
    values: np.ndarray = image.astype(np.float32) / 255
    return values


def from_unit(values: np.ndarray) -> np.ndarray:
    """Turn values on a 0-1 scale, cut where they exceed it, into uint8."""
    levels: np.ndarray = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return levels


def scale(pixels: np.ndarray) -> float:
    """Return how many pixels of this image (H, W, ...) one pixel of the reference is."""
    return float(min(pixels.shape[:2])) / REFERENCE


def convolve(pixels: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolve (H, W, ...) with an odd square kernel of sum 1, the image mirrored beyond its borders."""
    reach = len(kernel) // 2
    around = [(reach, reach)] * 2 + [(0, 0)] * (pixels.ndim - 2)
    weights = kernel.astype(np.float32).reshape(*kernel.shape, *[1] * (pixels.ndim - 2))
    convolved: np.ndarray = fftconvolve(np.pad(pixels, around, mode="symmetric"), weights, mode="valid", axes=(0, 1))
    return convolved


def enlarge(layer: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize one layer (h, w) of float32 with linear interpolation."""
    return np.asarray(Image.fromarray(layer).resize((width, height), Image.Resampling.BILINEAR))
