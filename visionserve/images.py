"""Bytes of any accepted image file -> one upright RGB array, within limits that hold before a pixel is decoded."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from visionserve.errors import CorruptImage, EmptyBody, ImageTooLarge, UnsupportedImage

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


@dataclass(frozen=True)
class Limits:
    """What a file may cost before it is refused."""

    max_bytes: int = 10 * 1024 * 1024
    max_pixels: int = 50_000_000


def decode(
    data: bytes | bytearray | memoryview, *, limits: Limits = Limits(), min_side: int | None = None
) -> npt.NDArray[np.uint8]:
    """Decode an image file to (H, W, 3) uint8 RGB, C-contiguous, turned upright.

    Args:
        data: The whole file.
        limits: Checked before decoding.
        min_side: A JPEG far larger may be decoded at 1/2, 1/4 or 1/8 while its shorter side stays >= this.

    Raises:
        EmptyBody, ImageTooLarge, UnsupportedImage, CorruptImage: The file is refused.
    """
    if len(data) == 0:
        raise EmptyBody("The body is empty: send the bytes of an image file.")
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(f"The file has {len(data)} bytes; at most {limits.max_bytes} are accepted.")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise UnsupportedImage("Not an image of an accepted format: JPEG, PNG, WebP, GIF, BMP, TIFF.") from None
    except Image.DecompressionBombError:
        raise ImageTooLarge("The image has too many pixels.") from None
    if image.width * image.height > limits.max_pixels:
        raise ImageTooLarge(f"The image has {image.width} x {image.height} pixels; at most {limits.max_pixels}.")
    try:
        if min_side is not None:
            image.draft("RGB", _at_least(image.size, min_side))
        return np.ascontiguousarray(_rgb(ImageOps.exif_transpose(image)))
    except Exception as error:
        raise CorruptImage("The image file is broken or truncated: send it again, whole.") from error


def _at_least(size: tuple[int, int], min_side: int) -> tuple[int, int]:
    shrink = max(1.0, min(size) / min_side)
    return int(np.ceil(size[0] / shrink)), int(np.ceil(size[1] / shrink))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        page = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(page, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")
