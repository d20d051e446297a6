"""Blur by the lens, by frosted glass, by motion and by zoom. All take (H, W, 3) float32 0-1."""

import math

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from training.evaluation.corruptions.pixels import convolve, from_unit, scale, to_unit


def defocus(
    pixels: np.ndarray,
    _: np.random.Generator,
    radius: float,
    softness: float,
) -> np.ndarray:
    """Defocus: every point becomes a disk."""
    radius = radius * scale(pixels)
    reach = math.ceil(radius) + 1
    down, right = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk = gaussian_filter((down**2 + right**2 <= radius**2).astype(np.float32), softness)
    return convolve(pixels, disk / disk.sum())


def gaussian(pixels: np.ndarray, _: np.random.Generator, deviation: float) -> np.ndarray:
    """Gaussian blur."""
    sigma = deviation * scale(pixels)
    blurred: np.ndarray = gaussian_filter(pixels, (sigma, sigma, 0))
    return blurred


def glass(pixels: np.ndarray, rng: np.random.Generator, deviation: float, furthest: int, moves: int) -> np.ndarray:
    """Frosted glass: pixels take the values of others nearby, between two blurs."""
    height, width = pixels.shape[:2]
    reach = max(1, round(furthest * scale(pixels)))
    spread = (deviation * scale(pixels), deviation * scale(pixels), 0)
    rows, columns = np.mgrid[0:height, 0:width]
    moved = gaussian_filter(pixels, spread)
    for _ in range(moves):
        down, right = rng.integers(-reach, reach + 1, (2, height, width))
        moved = moved[np.clip(rows + down, 0, height - 1), np.clip(columns + right, 0, width - 1)]
    blurred: np.ndarray = gaussian_filter(moved, spread)
    return blurred


def motion(pixels: np.ndarray, rng: np.random.Generator, half: float, fading: float) -> np.ndarray:
    """Move the camera within 45 degrees of the horizontal while the shutter is open."""
    return convolve(pixels, trail(half * scale(pixels), fading * scale(pixels), rng.uniform(-45, 45)))


def trail(half: float, fading: float, degrees: float) -> np.ndarray:
    """Return the kernel of a moving point: a line from the centre, two halves long, with Gaussian weights."""
    steps = np.arange(2 * max(1, round(half)) + 1)
    weights = np.exp(-(steps**2) / (2 * fading**2))
    reach = int(steps[-1])
    down = np.rint(reach + steps * math.sin(math.radians(degrees))).astype(int)
    right = np.rint(reach + steps * math.cos(math.radians(degrees))).astype(int)
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    np.add.at(kernel, (down, right), weights)
    whole: np.ndarray = kernel / kernel.sum()
    return whole


def zoom(pixels: np.ndarray, _: np.random.Generator, last: float, step: float) -> np.ndarray:
    """Zoom while the shutter is open: the mean of enlargements from 1 to ``last``."""
    height, width = pixels.shape[:2]
    image = Image.fromarray(from_unit(pixels))
    factors = np.arange(1, last + step / 2, step)
    total = pixels.copy()
    for factor in factors:
        top, left = (height - height / factor) / 2, (width - width / factor) / 2
        part = (left, top, width - left, height - top)
        total += to_unit(np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, part)))
    return total / (len(factors) + 1)
