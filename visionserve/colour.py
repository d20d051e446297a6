"""Any of Pillow's modes -> RGB with transparency laid on white.

Images of more than eight bits a value are scaled, not clipped: 16-bit grey from its nominal range, 32-bit integers and
floats, which have no nominal white, from their own darkest to their own brightest value.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin

_BAND = 1 << 20  # pixels converted at a time: the memory needed stays near that of the image and the result


def rgb_on_white(image: Image.Image) -> np.ndarray:
    """Convert a loaded image of any mode to (H, W, 3) uint8, C-contiguous and writable."""
    width, height = image.size
    convert = _conversion(image)
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(1, _BAND // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        pixels[top:bottom] = convert(image.crop((0, top, width, bottom)))
    return pixels


def _conversion(image: Image.Image) -> Callable[[Image.Image], np.ndarray]:
    """Return what turns a band of rows of this image into (rows, W, 3) uint8, or something that broadcasts to it."""
    if image.mode.startswith("I;16"):
        black, white = _nominal_range(image)
        return partial(_scaled, black=black, white=white, transparent=image.info.get("transparency"))
    if image.mode in ("I", "F"):
        darkest, brightest = np.asarray(image.getextrema(), np.float64).tolist()
        return partial(_scaled, black=darkest, white=brightest)
    if image.has_transparency_data:
        image.info.update(_eight_bit_transparency(image.info.get("transparency")))
        return _flattened
    return _opaque


def _nominal_range(image: Image.Image) -> tuple[int, int]:
    """Return the values of black and white in a 16-bit grey image; a TIFF may use fewer bits or count from white."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return 0, 0xFFFF
    bits = image.tag_v2.get(ExifTags.Base.BitsPerSample, (16,))[0]
    white_is_zero = image.tag_v2.get(ExifTags.Base.PhotometricInterpretation) == 0
    return ((1 << bits) - 1, 0) if white_is_zero else (0, (1 << bits) - 1)


def _eight_bit_transparency(colour: object) -> dict[str, tuple[int, ...]]:
    """Bring the transparent colour of a 16-bit RGB PNG to the eight bits that Pillow reduces its pixels to."""
    if isinstance(colour, tuple) and any(value > 0xFF for value in colour):
        return {"transparency": tuple(value >> 8 for value in colour)}
    return {}


def _scaled(band: Image.Image, *, black: float, white: float, transparent: int | None = None) -> np.ndarray:
    values = np.asarray(band).astype(np.float64)
    with np.errstate(
        all="ignore"
    ):  # a float TIFF may hold infinities and no-numbers: the first clip, the others are black
        shade = (values - black) * (255 / (white - black) if white != black else 0)
    grey = np.rint(np.clip(np.nan_to_num(shade), 0, 255)).astype(np.uint8)
    if transparent is not None:
        grey[values == transparent] = 255
    return grey[:, :, None]


def _flattened(band: Image.Image) -> np.ndarray:
    page = Image.new("RGBA", band.size, "white")
    page.alpha_composite(band.convert("RGBA"))
    return np.asarray(page)[:, :, :3]


def _opaque(band: Image.Image) -> np.ndarray:
    return np.asarray(band.convert("RGB"))
