"""Bytes of an image file -> one upright RGB array, within limits that hold before a pixel is decoded.

    bytes -> size limit -> signature -> headers -> pixel, memory and time limits -> decoder -> RGB on white
          -> sRGB -> upright

Training and serving have no other decoder.
"""

import re
import warnings

import numpy as np
from PIL import Image

from visionserve.errors import CorruptImage, ImageTooLarge, ServiceError
from visionserve.formats import decoders, signatures
from visionserve.formats.limits import Limits
from visionserve.formats.orientation import orientation

__all__ = ["DEFAULT_LIMITS", "Limits", "decode", "orientation"]

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


def _silence_pillow() -> None:
    """Ignore Pillow's warnings about odd files: what matters becomes an error.

    A lasting filter, for Pillow's modules alone. warnings.catch_warnings is not safe among threads, and each use makes
    all other libraries repeat the warnings that they give once.
    """
    entry = ("ignore", None, Warning, _PILLOW, 0)
    if not warnings.filters or warnings.filters[0] != entry:
        warnings.filterwarnings("ignore", module=_PILLOW.pattern)
