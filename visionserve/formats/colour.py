"""Any of Pillow's modes -> RGB with transparency laid on white.

Images of more than eight bits a value are scaled, not clipped: 16-bit grey from its nominal range, 32-bit integers and
floats, which have no nominal white, from their own darkest to their own brightest finite value.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin

from visionserve.formats.srgb import Conversion

_BAND = 1 << 20  # pixels converted at a time: the memory needed stays near that of the image and the result

Convert = Callable[[Image.Image], np.ndarray]


def rgb_on_white(image: Image.Image, factor: int = 1, conversion: Conversion | None = None) -> np.ndarray:
    """Convert a loaded image of any mode to (H, W, 3) uint8, C-contiguous and writable.

    Args:
        factor: Each square of factor x factor pixels becomes their mean, as a JPEG decoder reduces an image.
        conversion: To sRGB, used here where the image is CMYK; the RGB of all others is converted afterwards.
    """
    width, height = image.size
    convert, linear = _conversion(image)
    if conversion and conversion.mode == image.mode == "CMYK":
        convert, linear = conversion.convert, True  # the mean of the inks: fewer pixels to convert
    if factor > 1:
        convert = partial(_reduced, convert=convert, linear=linear, factor=factor)
    pixels = np.empty((-(-height // factor), -(-width // factor), 3), np.uint8)
    for top, band in _bands(image, factor):
        converted = convert(band)
        pixels[top // factor : top // factor + len(converted)] = converted
    return pixels


def scale_transparency(image: Image.Image, bits: int) -> None:
    """Bring the transparent colour of a PNG of that bit depth to the eight bits to which Pillow scales its pixels."""
    colour = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(colour, tuple) and bits == 16:
        image.info["transparency"] = tuple(value >> 8 for value in colour)
    elif image.mode == "L" and isinstance(colour, int) and bits in (2, 4):
        image.info["transparency"] = min(colour * 255 // ((1 << bits) - 1), 255)


def _bands(image: Image.Image, factor: int = 1) -> Iterator[tuple[int, Image.Image]]:
    """Yield the image in bands of rows, a multiple of ``factor`` each but the last, with the row where each begins."""
    width, height = image.size
    rows = max(1, _BAND // width // factor) * factor
    for top in range(0, height, rows):
        yield top, image.crop((0, top, width, min(top + rows, height)))


def _reduced(band: Image.Image, *, convert: Convert, linear: bool, factor: int) -> np.ndarray:
    if linear:  # the mean may be taken first, which is faster
        return convert(band.reduce(factor))
    pixels = np.ascontiguousarray(np.broadcast_to(convert(band), (band.height, band.width, 3)))
    return np.asarray(Image.fromarray(pixels).reduce(factor))


def _conversion(image: Image.Image) -> tuple[Convert, bool]:
    """Return what turns a band of this image into (rows, W, 3) uint8, or what broadcasts to it, and if it is linear."""
    if image.mode.startswith("I;16"):
        return partial(_looked_up, table=_table(image)), False
    if image.mode in ("I", "F"):
        darkest, brightest, finite = _finite_range(image)
        return partial(_scaled, black=darkest, white=brightest), finite
    keyed = "transparency" in image.info or image.mode in ("P", "PA")
    if image.has_transparency_data:
        return _flattened, not keyed
    return _opaque, image.mode in ("L", "RGB")


def _table(image: Image.Image) -> np.ndarray:
    """Return the shade, (65536,) uint8, of each value of a 16-bit grey image."""
    black, white = _nominal_range(image)
    shades = (np.arange(1 << 16, dtype=np.float64) - black) * (255 / (white - black))
    table = np.rint(np.clip(shades, 0, 255)).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        table[transparent & 0xFFFF] = 255
    return table


def _nominal_range(image: Image.Image) -> tuple[int, int]:
    """Return the values of black and white in a 16-bit grey image; a TIFF may use fewer bits or count from white."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return 0, 0xFFFF
    bits = image.tag_v2.get(ExifTags.Base.BitsPerSample, (16,))[0]
    white_is_zero = image.tag_v2.get(ExifTags.Base.PhotometricInterpretation) == 0
    return ((1 << bits) - 1, 0) if white_is_zero else (0, (1 << bits) - 1)


def _finite_range(image: Image.Image) -> tuple[float, float, bool]:
    """Return the darkest and the brightest finite value, 0 and 0 where there are none, and whether all are finite."""
    darkest, brightest, all_finite = np.inf, -np.inf, True
    for _, band in _bands(image):
        values = np.asarray(band)
        if values.dtype.kind == "f" and not (finite := np.isfinite(values)).all():
            values, all_finite = values[finite], False
        if values.size:
            darkest, brightest = min(darkest, float(values.min())), max(brightest, float(values.max()))
    return (darkest, brightest, all_finite) if darkest <= brightest else (0.0, 0.0, all_finite)


def _looked_up(band: Image.Image, *, table: np.ndarray) -> np.ndarray:
    shades: np.ndarray = table[np.asarray(band)]
    return shades[:, :, None]


def _scaled(band: Image.Image, *, black: float, white: float) -> np.ndarray:
    """Scale to 0-255; NaN becomes black, an infinity black or white."""
    shade = np.asarray(band).astype(np.float64)
    with np.errstate(invalid="ignore"):
        shade -= black
        shade *= 255 / (white - black) if white != black else 0
    np.nan_to_num(shade, copy=False)
    return np.rint(np.clip(shade, 0, 255, out=shade), out=shade).astype(np.uint8)[:, :, None]


def _flattened(band: Image.Image) -> np.ndarray:
    page = Image.new("RGBA", band.size, "white")
    page.alpha_composite(band.convert("RGBA"))
    return np.asarray(page)[:, :, :3]


def _opaque(band: Image.Image) -> np.ndarray:
    return np.asarray(band.convert("RGB"))
