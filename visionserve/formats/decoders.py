"""Decoders: an opened file of one of the formats -> RGB on white, at a size that its plan allows, not yet upright.

Pillow reads the headers, a tenth of a millisecond each, but for those of plain JPEGs without metadata. torchvision
decodes the JPEGs in grey or RGB and the WebPs; JPEGs at a reduced scale and all others stay with Pillow, HEIC with
libheif.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin

from visionserve.errors import UnsupportedImage
from visionserve.formats import colour, headers, heif, torchvision_decoders
from visionserve.formats.embedded_profiles import embedded_profile, is_cropped
from visionserve.formats.limits import Deadline, Limits, Plan, Timed
from visionserve.formats.orientation import may_be_turned, orientation, upright
from visionserve.formats.srgb import Conversion, conversion_for

_CLEAN: dict[str, Callable[[bytes | bytearray], bytes | bytearray]] = {
    "PNG": headers.clean_png,
    "GIF": headers.clean_gif,
}
_CHECK: dict[str, Callable[[bytes | bytearray], None]] = {
    "BMP": headers.check_bmp,
    "TIFF": headers.check_tiff,
}
# Of Pillow's pixels; all other modes take four bytes.
_PILLOW_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}
_PILLOW_ROW_BYTES = 8  # a pointer
_RGB_BYTES = 3


@dataclass(frozen=True)
class _Opened:
    """A file whose header is read and within the limits."""

    file: bytes | bytearray
    image: Any
    plan: Plan
    conversion: Conversion | None


def decode(file: bytes | bytearray, image_format: str, limits: Limits, min_side: int | None) -> np.ndarray:
    """Decode a file of a format that `signatures.recognise` returns, to (H, W, 3) uint8, upright.

    Raises:
        ServiceError: Over a limit.
        Exception: Of any kind, where the file is broken.
    """
    jpeg = headers.read_jpeg(file) if image_format == "JPEG" else None
    if jpeg and jpeg.plain:
        limits.check_pixels(*jpeg.size)
        if (plan := Plan(jpeg.size, False, limits, min_side)).factor == 1:
            return _decode_plain_jpeg(file, jpeg, plan)
    if image_format in _CHECK:
        _CHECK[image_format](file)
    if image_format in _CLEAN:
        file = _CLEAN[image_format](file)
    deadline = Deadline()
    if image_format == "HEIF":
        return _decode_heic(file, limits, min_side, deadline)
    # A JPEG's segments and scans are bounded above, and its header takes Pillow some 70 reads: they stay in C.
    readable = io.BytesIO(file) if image_format == "JPEG" else Timed(file, deadline)
    image = heif.open_avif(readable) if image_format == "AVIF" else Image.open(readable, formats=[image_format])
    limits.check_pixels(*image.size)
    if image_format == "AVIF" and is_cropped(file, image.size):  # neither Pillow nor a browser's page crops it
        raise UnsupportedImage("The AVIF file states a crop (clean aperture): save it cropped, or send a JPEG or PNG.")
    plan = Plan(image.size, may_be_turned(file, image), limits, min_side)
    opened = _Opened(file, image, plan, conversion_for(embedded_profile(file, image), image.mode))
    if jpeg:
        pixels = _decode_jpeg(opened, jpeg.coefficient_bytes)
    elif image_format == "WEBP" and not getattr(image, "is_animated", True):
        pixels = _decode_webp(opened)
    else:
        pixels = _decode_with_pillow(opened)
    _convert(pixels, opened.conversion, deadline)
    return upright(pixels, orientation(image))


def plain_jpeg(file: bytes | bytearray, limits: Limits, max_pixels: int) -> tuple[int, int] | None:
    """Return orientation, 1-8, and pixels of a complete grey or RGB JPEG without a profile; None of any other."""
    headers.read_jpeg(file)
    image = Image.open(io.BytesIO(file), formats=["JPEG"])
    limits.check_pixels(*image.size)
    pixels = image.width * image.height
    plain = image.mode in ("L", "RGB") and not conversion_for(embedded_profile(file, image), image.mode)
    if not plain or pixels > max_pixels or not file.rstrip(b"\0").endswith(headers.JPEG_END):
        return None
    turn = orientation(image)
    return turn if 1 <= turn <= 8 else 1, pixels


def _convert(pixels: np.ndarray, conversion: Conversion | None, deadline: Deadline) -> None:
    if conversion and conversion.mode != "CMYK":  # that one is converted band by band, as it becomes RGB
        conversion.convert_in_place(pixels, deadline)


def _decode_plain_jpeg(file: bytes | bytearray, header: headers.JpegHeader, plan: Plan) -> np.ndarray:
    pixels = header.size[0] * header.size[1]
    plan.check_memory(header.coefficient_bytes * pixels, _RGB_BYTES * pixels)
    return torchvision_decoders.decode_jpeg(file, header.size)


def _decode_jpeg(opened: _Opened, coefficient_bytes: float) -> np.ndarray:
    image, plan, full_size = opened.image, opened.plan, opened.image.size
    if plan.min_side is not None:  # the smallest of 1/1, 1/2, 1/4, 1/8 that keeps both sides >= min_side
        image.draft(None, (plan.min_side, plan.min_side))
    pixels = image.width * image.height
    # torchvision can neither scale nor invert CMYK.
    with_pillow = image.size != full_size or image.mode not in ("L", "RGB")
    held = coefficient_bytes * full_size[0] * full_size[1] + (
        _PILLOW_BYTES.get(image.mode, 4) * pixels if with_pillow else 0
    )
    plan.check_memory(held, _RGB_BYTES * pixels)
    if with_pillow:
        image.load()
        return colour.rgb_on_white(image, conversion=opened.conversion)
    return torchvision_decoders.decode_jpeg(opened.file, full_size)


def _decode_webp(opened: _Opened) -> np.ndarray:
    """Decode a WebP of one frame."""
    image, plan = opened.image, opened.plan
    pixels = image.width * image.height
    lossless = 4 if b"VP8L" in opened.file else 0
    opaque = image.mode == "RGB"
    plan.check_memory((lossless + (3 if opaque else 4)) * pixels, 0 if opaque else _RGB_BYTES * pixels / plan.factor**2)
    decoded = torchvision_decoders.decode_webp(opened.file, image.size, opaque=opaque)
    return decoded if opaque else colour.rgb_on_white(Image.fromarray(decoded, "RGBA"), plan.factor)


def _decode_heic(file: bytes | bytearray, limits: Limits, min_side: int | None, deadline: Deadline) -> np.ndarray:
    opened = heif.HeicFile(file)
    limits.check_pixels(*opened.size)
    plan = Plan(opened.size, False, limits, min_side)
    pixels = opened.size[0] * opened.size[1]
    plan.check_memory(heif.HEIC_BYTES * pixels, _RGB_BYTES * pixels / plan.factor**2)
    image = opened.decode()
    decoded = colour.rgb_on_white(image, plan.factor)
    _convert(decoded, conversion_for(embedded_profile(file, opened), image.mode), deadline)
    return decoded


def _decode_with_pillow(opened: _Opened) -> np.ndarray:
    image, plan = opened.image, opened.plan
    _check_tiles(image, plan.limits)
    pixels = image.width * image.height
    per_pixel = float(_PILLOW_BYTES.get(image.mode, 4))
    if image.format == "AVIF":
        per_pixel = heif.AVIF_BYTES
    if image.format == "WEBP":  # an animation: two canvases beside Pillow's image
        per_pixel *= 4
    if image.format == "TIFF" and plan.turned:  # Pillow turns it, into a second image
        per_pixel *= 2
    plan.check_memory(per_pixel * pixels + _PILLOW_ROW_BYTES * image.height, _RGB_BYTES * pixels / plan.factor**2)
    image.load()
    if image.format == "PNG":
        colour.scale_transparency(image, opened.file[headers.PNG_BIT_DEPTH])
    return colour.rgb_on_white(image, plan.factor, opened.conversion)


def _check_tiles(image: Image.Image, limits: Limits) -> None:
    """Refuse a TIFF with giant tiles: each is decoded whole, however little of it lies inside the image."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        limits.check_pixels(tags.get(ExifTags.Base.TileWidth, 1), tags.get(ExifTags.Base.TileLength, 1))
