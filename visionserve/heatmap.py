"""Heatmaps: a class map as an image, alone or over the image it explains."""

import io

import numpy as np
from PIL import Image

# Corners of the colour scale, weak to strong, at equal distances, after Google's "turbo" (2019): hues that stand out
# against an image of any colour; its dark ends are left out.
_SCALE = np.array(
    [(70, 107, 227), (40, 187, 236), (49, 242, 153), (162, 252, 60), (237, 208, 58), (251, 128, 34), (210, 49, 5)],
    dtype=np.float32,
)
_OPACITY = 0.65


def intensity(class_map: np.ndarray, size: int) -> np.ndarray:
    """Return a class map (h, w) as (size, size) float32, 0-1: the evidence for the label, its maximum at 1.

    Evidence against the label is 0, as in Grad-CAM (Selvaraju et al. 2017, equation 2).
    """
    positive = np.maximum(class_map, 0).astype(np.float32)
    strongest = float(positive.max())
    if strongest > 0:
        positive = positive / strongest
    clipped: np.ndarray = np.clip(_enlarged(positive, size), 0, 1)
    return clipped


def peak(class_map: np.ndarray, size: int) -> tuple[float, float]:
    """Return the position (x, y) of the maximum of a heatmap of ``size`` x ``size`` pixels: a pixel's centre, n + 0.5.

    Taken from the enlarged class map (h, w), before `intensity` cuts off what the enlargement overshoots.
    Without any evidence for the label, it is the position with the least evidence against it.
    """
    values = np.maximum(class_map, 0) if class_map.max() > 0 else class_map
    row, column = divmod(int(_enlarged(values.astype(np.float32), size).argmax()), size)
    return column + 0.5, row + 0.5


def peak_place(class_map: np.ndarray, size: int) -> tuple[int, int]:
    """Return the place (row, column) of a class map (h, w) in which the heatmap's `peak` lies."""
    x, y = peak(class_map, size)
    return int(y / size * class_map.shape[0]), int(x / size * class_map.shape[1])


def _enlarged(values: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(Image.fromarray(values).resize((size, size), Image.Resampling.BICUBIC))


def grey_png(class_map: np.ndarray, size: int) -> bytes:
    """Return a class map (h, w) as an 8-bit grey PNG of ``size`` x ``size`` pixels; 255 is the maximum."""
    return _png(np.rint(intensity(class_map, size) * 255).astype(np.uint8))


def overlay_png(image: np.ndarray, class_map: np.ndarray) -> bytes:
    """Return the image (S, S, 3) uint8 with its class map (h, w) in colour over it, as a PNG of S x S pixels."""
    strength = intensity(class_map, len(image))[:, :, None]  # (S, S, 1)
    colours = _colour(strength[:, :, 0])
    opacity = _OPACITY * strength
    return _png(np.rint(image * (1 - opacity) + colours * opacity).astype(np.uint8))


def _colour(values: np.ndarray) -> np.ndarray:
    """Return (..., 3) float32 colours, 0-255, of values 0-1."""
    positions = np.linspace(0, 1, len(_SCALE))
    return np.stack([np.interp(values, positions, channel) for channel in _SCALE.T], axis=-1).astype(np.float32)


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
