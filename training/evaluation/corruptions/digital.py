"""Noise of the sensor; changes by processing, storage and transport. All take (H, W, 3) float32 0-1."""

import io

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from training.evaluation.corruptions.pixels import from_unit, to_unit


def gaussian(pixels: np.ndarray, rng: np.random.Generator, deviation: float) -> np.ndarray:
    """Add the noise of a sensor in low light."""
    noisy: np.ndarray = pixels + np.float32(deviation) * rng.standard_normal(pixels.shape, np.float32)
    return noisy


def shot(pixels: np.ndarray, rng: np.random.Generator, photons: float) -> np.ndarray:
    """Poisson noise: count light in photons, of which ``photons`` make white."""
    return rng.poisson(pixels * photons) / photons


def impulse(pixels: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """Set a share of all values to black or white."""
    drawn = rng.random(pixels.shape, np.float32)
    return np.where(drawn < share / 2, 0, np.where(drawn > 1 - share / 2, 1, pixels))


def contrast(pixels: np.ndarray, _: np.random.Generator, kept: float) -> np.ndarray:
    """Move every channel towards its mean."""
    means = pixels.mean((0, 1), keepdims=True)
    drawn: np.ndarray = means + kept * (pixels - means)
    return drawn


def elastic(
    pixels: np.ndarray, rng: np.random.Generator, strength: float, smoothness: float, jitter: float
) -> np.ndarray:
    """Elastic deformation plus a random affine transform (Simard et al. 2003); lengths in shorter sides."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    grid = np.mgrid[0:height, 0:width].astype(np.float32)  # (2, H, W): row and column of each pixel
    arm = side // 3
    corners = np.array([height // 2, width // 2]) + np.array([[arm, arm], [arm, -arm], [-arm, -arm]])
    moved = corners + rng.uniform(-jitter * side, jitter * side, corners.shape)
    affine = np.linalg.solve(np.column_stack([corners, np.ones(3)]), moved)  # (3, 2)
    coordinates = np.einsum("ij,ihw->jhw", affine[:2], grid) + affine[2][:, None, None]
    waves = gaussian_filter(rng.uniform(-1, 1, grid.shape), (0, smoothness * side, smoothness * side), truncate=3)
    coordinates += strength * side * waves
    return np.stack([map_coordinates(pixels[..., c], coordinates, order=1, mode="mirror") for c in range(3)], axis=-1)


def pixelate(pixels: np.ndarray, _: np.random.Generator, kept: float) -> np.ndarray:
    """Reduce, then enlarge without smoothing."""
    height, width = pixels.shape[:2]
    small = (max(1, int(width * kept)), max(1, int(height * kept)))
    image = Image.fromarray(from_unit(pixels)).resize(small, Image.Resampling.BOX)
    return to_unit(np.asarray(image.resize((width, height), Image.Resampling.BOX)))


def jpeg(pixels: np.ndarray, _: np.random.Generator, quality: int) -> np.ndarray:
    """Save as a JPEG of low quality."""
    stream = io.BytesIO()
    Image.fromarray(from_unit(pixels)).save(stream, "JPEG", quality=quality)
    return to_unit(np.asarray(Image.open(stream)))
