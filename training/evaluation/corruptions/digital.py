"""What processing, storage and transport do to a picture. All take (H, W, 3) float32 0-1."""

import io

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from training.evaluation.corruptions.pixels import from_unit, to_unit


def contrast(pixels: np.ndarray, _: np.random.Generator, kept: float) -> np.ndarray:
    """Draw every channel towards its mean."""
    means = pixels.mean((0, 1), keepdims=True)
    drawn: np.ndarray = means + kept * (pixels - means)
    return drawn


def elastic(
    pixels: np.ndarray, chance: np.random.Generator, strength: float, smoothness: float, jitter: float
) -> np.ndarray:
    """Print the picture on rubber, pull it at three points and let it wave (Simard et al. 2003); in shorter sides."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    grid = np.mgrid[0:height, 0:width].astype(np.float32)  # (2, H, W): row and column of each pixel
    arm = side // 3
    corners = np.array([height // 2, width // 2]) + np.array([[arm, arm], [arm, -arm], [-arm, -arm]])
    pulled = corners + chance.uniform(-jitter * side, jitter * side, corners.shape)
    affine = np.linalg.solve(np.column_stack([corners, np.ones(3)]), pulled)  # (3, 2)
    places = np.einsum("ij,ihw->jhw", affine[:2], grid) + affine[2][:, None, None]
    waves = gaussian_filter(chance.uniform(-1, 1, grid.shape), (0, smoothness * side, smoothness * side), truncate=3)
    places += strength * side * waves
    return np.stack([map_coordinates(pixels[..., c], places, order=1, mode="mirror") for c in range(3)], axis=-1)


def pixelate(pixels: np.ndarray, _: np.random.Generator, kept: float) -> np.ndarray:
    """Make it small, then large again without smoothing."""
    height, width = pixels.shape[:2]
    small = (max(1, int(width * kept)), max(1, int(height * kept)))
    picture = Image.fromarray(from_unit(pixels)).resize(small, Image.Resampling.BOX)
    return to_unit(np.asarray(picture.resize((width, height), Image.Resampling.BOX)))


def jpeg(pixels: np.ndarray, _: np.random.Generator, quality: int) -> np.ndarray:
    """Save with few bytes."""
    stream = io.BytesIO()
    Image.fromarray(from_unit(pixels)).save(stream, "JPEG", quality=quality)
    return to_unit(np.asarray(Image.open(stream)))
