"""Bytes of an image file -> one upright RGB array, within limits that hold before a pixel is decoded.

    bytes -> size limit -> signature -> headers -> pixel, memory and time limits -> decoder -> RGB on white
          -> sRGB -> upright

Training and serving have no other decoder.
"""

import io
import re
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image

from visionserve.errors import CorruptImage, ImageTooLarge, ServiceError
from visionserve.formats import decoders, heif, signatures
from visionserve.formats.limits import Limits
from visionserve.formats.orientation import orientation

__all__ = ["DEFAULT_LIMITS", "Header", "Limits", "decode", "read_header"]

DEFAULT_LIMITS = Limits()
_PILLOW = re.compile(r"PIL\.")


def decode(
    data: bytes | bytearray | memoryview, *, limits: Limits = DEFAULT_LIMITS, min_side: int | None = None
) -> np.ndarray:
    """Decode a whole image file, the first frame of an animation, to (H, W, 3) uint8 RGB, C-contiguous and writable.

    Args:
        data: JPEG (of any kind), PNG, WebP, HEIC, AVIF, GIF, BMP or TIFF. A bytearray is read in place.
        limits: Checked before anything is decoded.
        min_side: The image may be decoded at 1/2, 1/4 or 1/8 of its size while its shorter side keeps at least so many
            pixels; None decodes every image at full size, whatever memory that takes.

    Raises:
        EmptyBody: The file is empty.
        ImageTooLarge: Over a limit, or a decompression bomb.
        UnsupportedImage: Not an image of an accepted format.
        CorruptImage: Truncated or broken.
    """
    limits.check_bytes(memoryview(data).nbytes)
    file = data.tobytes() if isinstance(data, memoryview) else data
    image_format = signatures.recognise(file)
    _silence_pillow()
    try:
        return decoders.decode(file, image_format, limits, min_side)
    except ServiceError:
        raise
    except (MemoryError, Image.DecompressionBombError) as error:
        raise ImageTooLarge("The image would take too much memory to decode: send a smaller one.") from error
    # Everything, for decoders promise nothing about hostile bytes: fuzzing raised OSError, SyntaxError, ValueError
    # and RuntimeError, and the KeyError or struct.error of some rare branch must not become a 500 either.
    except Exception as error:
        raise CorruptImage(
            f"The {image_format} file does not decode: it is truncated, corrupt or uses an unsupported "
            "feature. Send the complete file, or re-save it as JPEG or PNG."
        ) from error


def plain_jpeg(data: bytes | bytearray, limits: Limits, max_pixels: int) -> tuple[int, int] | None:
    """Return EXIF orientation, 1-8, and pixels of a JPEG that any decoder reads alike; None for what `decode` judges.

    Such a file is within the limits and ``max_pixels``, complete, grey or RGB, and has no colour profile.
    """
    try:
        limits.check_bytes(len(data))
        if signatures.recognise(data) != "JPEG":
            return None
        _silence_pillow()
        return decoders.plain_jpeg(data, limits, max_pixels)
    except Exception:  # noqa: BLE001 - `decode` says what is wrong with it
        return None


@dataclass(frozen=True)
class Header:
    """What the header of an image file states.

    Attributes:
        format: Pillow's name of the file format.
        mode: Pillow's name of the colours, as stored.
        size: Width and height in pixels, as stored.
        turn: The EXIF orientation, 1-8, that `decode` undoes; 1 for HEIC, whose size is that of the upright image.
    """

    format: str
    mode: str
    size: tuple[int, int]
    turn: int


def read_header(data: bytes) -> Header:
    """Return what a file's header states, without decoding the image: for files that `decode` has accepted."""
    image_format = signatures.recognise(data)
    if image_format == "HEIF":
        opened = heif.HeicFile(data)
        return Header(image_format, opened.mode, opened.size, 1)
    _silence_pillow()
    file = io.BytesIO(data)
    with heif.open_avif(file) if image_format == "AVIF" else Image.open(file, formats=[image_format]) as image:
        turn = orientation(image)
        return Header(image.format or image_format, image.mode, image.size, turn if 1 <= turn <= 8 else 1)


def _silence_pillow() -> None:
    """Ignore Pillow's warnings about odd files: what matters becomes an error.

    A lasting filter, for Pillow's modules alone. warnings.catch_warnings is not safe among threads, and each use makes
    all other libraries repeat the warnings that they give once.
    """
    entry = ("ignore", None, Warning, _PILLOW, 0)
    if not warnings.filters or warnings.filters[0] != entry:
        warnings.filterwarnings("ignore", module=_PILLOW.pattern)
