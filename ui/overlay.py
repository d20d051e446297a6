"""Photograph and heatmap -> the picture that is shown.

The service has accepted a file before anything here decodes it, so its limits hold. The heatmap covers the square in
the middle of the photograph that the model saw; what lies outside is dimmed.
"""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from ui import colours

Pixels = np.ndarray  # (H, W, 3) uint8, RGB

_SIDE = 900  # pixels of the longer side: sharp on a phone's screen, small on its way there
_GREYED = 0.75  # of the photograph's own colour taken away below a full heatmap, so that the scale's colours read
_OUTSIDE = 0.45  # how far the surroundings of the model's view are darkened below a full heatmap
_COVER = 0.9  # opacity of a strong place of a full heatmap
_STRONG = 0.5  # strength from which on a place is covered that much; weaker ones let the photograph through
_FRAME = 0.4  # how white the line around the model's view is
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True)
class View:
    """The square that the model saw of a picture, in its pixels."""

    left: int
    top: int
    side: int


def photograph(data: bytes) -> Pixels:
    """Decode a file, upright, on white, at most 900 pixels long.

    Raises:
        OSError, ValueError: it can be served, but not shown here.
    """
    with Image.open(io.BytesIO(data)) as opened:
        opened.draft("RGB", (_SIDE * 2, _SIDE * 2))  # a large JPEG is decoded at a fraction of its size
        image = ImageOps.exif_transpose(_eight_bit(opened))
        image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    page = Image.new("RGBA", image.size, "white")
    page.alpha_composite(image.convert("RGBA"))
    return np.asarray(page.convert("RGB"))


def view(picture: Pixels, crop: float) -> View:
    """Return the model's square of a picture: centred, ``crop`` of the shorter side."""
    height, width = picture.shape[:2]
    side = max(1, round(min(height, width) * crop))
    return View((width - side) // 2, (height - side) // 2, side)


def strength(heatmap: bytes) -> np.ndarray:
    """Decode the service's heatmap, a grey PNG, to (S, S) uint8."""
    with Image.open(io.BytesIO(heatmap)) as opened:
        return np.asarray(opened.convert("L"))


def blend(picture: Pixels, heat: np.ndarray, seen: View, opacity: float) -> np.ndarray:
    """Lay a heatmap (S, S) uint8 over the seen square of a picture (H, W, 3) uint8.

    Args:
        opacity: 0 is the photograph as it is, 1 a heatmap that covers its strongest place.
    """
    if opacity <= 0:
        return picture
    levels = np.asarray(Image.fromarray(heat).resize((seen.side, seen.side), Image.Resampling.BICUBIC))  # (side, side)
    below = picture.astype(np.float32)
    grey = (below @ _LUMA)[:, :, None]  # (H, W, 1)
    below += (grey - below) * (_GREYED * opacity)
    result = below * (1 - _OUTSIDE * opacity)
    square = np.s_[seen.top : seen.top + seen.side, seen.left : seen.left + seen.side]
    cover = np.minimum(levels.astype(np.float32) / (255 * _STRONG), 1)[:, :, None] * (
        _COVER * opacity
    )  # (side, side, 1)
    result[square] = below[square] * (1 - cover) + colours.scale()[levels] * cover
    _frame(result[square], _FRAME * opacity)
    blended: Pixels = np.rint(np.clip(result, 0, 255)).astype(np.uint8)
    return blended


def _frame(square: np.ndarray, whiteness: float) -> None:
    """Draw a line along the inside of a square (side, side, 3), in place."""
    for edge in (square[0], square[-1], square[1:-1, 0], square[1:-1, -1]):
        edge += (255 - edge) * whiteness


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey and floats, which Pillow would clip, to eight bits."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    white = 0xFFFF if image.mode.startswith("I;16") else values.max() or 1
    return Image.fromarray(np.clip(values * (255 / white), 0, 255).astype(np.uint8))
