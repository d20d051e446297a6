"""Bytes of an image file -> one upright RGB array, within limits that hold before a pixel is decoded.

    bytes -> size limit -> signature -> header -> pixel and scan limits -> decoder -> RGB on white -> upright

Pillow reads every header: 3 % of the time of a 500 x 333 JPEG. torchvision then decodes the plain JPEGs: the same
libjpeg-turbo, the same pixels, without Pillow's detour over four bytes a pixel. JPEGs at a reduced scale and all other
images stay with Pillow. Colour profiles are ignored, in training as in serving.
"""

import functools
import importlib.util
import io
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, TiffImagePlugin, WebPImagePlugin

from visionserve import colour
from visionserve.errors import CorruptImage, EmptyBody, ImageTooLarge, ServiceError, UnsupportedImage

# Two named through their plugins: without the imports the first of them would send Pillow through all its plugins.
_SIGNATURES = {
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    WebPImagePlugin.WebPImageFile.format: re.compile(rb"RIFF....WEBP", re.DOTALL),
    "GIF": re.compile(rb"GIF8[79]a"),
    "BMP": re.compile(rb"BM"),
    TiffImagePlugin.TiffImageFile.format: re.compile(rb"II[*+]\0|MM\0[*+]"),
}

# A JPEG may hold any number of scans, each a pass over the whole image for a few bytes. Encoders write about ten; Skia
# and libtiff stop at 100, libjpeg-turbo's TJFLAG_LIMITSCANS at 500, on the advice of
# https://libjpeg-turbo.org/pmwiki/uploads/About/TwoIssueswiththeJPEGStandard.pdf
_MAX_SCANS = 100
_MAX_JUNK = 1 << 16  # bytes between a JPEG's segments; Pillow looks through them one by one
_SEGMENT = re.compile(rb"\xff([\xc0-\xcf\xd9-\xfe])")  # the markers that libjpeg follows; restarts have no length
_SCAN, _END = b"\xda", b"\xd9"

_PILLOW = re.compile(r"PIL\.")
_RGB = 3  # torchvision.io.ImageReadMode.RGB


@dataclass(frozen=True)
class Limits:
    """What a file may cost: its own bytes, and its pixels as its header states them."""

    max_bytes: int = 10 * 1024 * 1024
    max_pixels: int = 50_000_000


DEFAULT_LIMITS = Limits()


def decode(
    data: bytes | bytearray | memoryview, *, limits: Limits = DEFAULT_LIMITS, min_side: int | None = None
) -> np.ndarray:
    """Decode a whole image file, the first frame of an animation, to (H, W, 3) uint8 RGB, C-contiguous and writable.

    Args:
        data: JPEG (of any kind), PNG, WebP, GIF, BMP or TIFF. A bytearray is read in place.
        limits: Checked before anything is decoded.
        min_side: A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size while its shorter side keeps at least so many
            pixels; None decodes every image at full size.

    Raises:
        EmptyBody: The file is empty.
        ImageTooLarge: Over a limit, or a decompression bomb.
        UnsupportedImage: Not an image of an accepted format.
        CorruptImage: Truncated or broken.
    """
    _check_bytes(memoryview(data).nbytes, limits)
    file = data.tobytes() if isinstance(data, memoryview) else data
    image_format = _recognise(file)
    _silence_pillow()
    try:
        return _decode(file, image_format, limits, min_side)
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


def _check_bytes(size: int, limits: Limits) -> None:
    if size == 0:
        raise EmptyBody("The body is empty: send the bytes of an image file.")
    if size > limits.max_bytes:
        raise ImageTooLarge(
            f"The file has {size:,} bytes; at most {limits.max_bytes:,} are accepted: send a smaller one."
        )


def _recognise(file: bytes | bytearray) -> str:
    for image_format, signature in _SIGNATURES.items():
        if signature.match(file):
            return image_format
    raise UnsupportedImage("Unsupported image format: send JPEG, PNG, WebP, GIF, BMP or TIFF.")


def _silence_pillow() -> None:
    """Ignore Pillow's warnings about odd files: what matters becomes an error.

    A lasting filter, for Pillow's modules alone. warnings.catch_warnings is not safe among threads, and each use makes
    all other libraries repeat the warnings that they give once.
    """
    entry = ("ignore", None, Warning, _PILLOW, 0)
    if not warnings.filters or warnings.filters[0] != entry:
        warnings.filterwarnings("ignore", module=_PILLOW.pattern)


def _decode(file: bytes | bytearray, image_format: str, limits: Limits, min_side: int | None) -> np.ndarray:
    if image_format == "JPEG":
        _check_segments(file)
    image = Image.open(io.BytesIO(file), formats=[image_format])
    _check_pixels(*image.size, limits)
    if image_format == "JPEG":
        pixels = _decode_jpeg(file, image, min_side)
    else:
        _check_tiles(image, limits)
        image.load()
        pixels = colour.rgb_on_white(image)
    return _upright(pixels, orientation(image))


def _check_segments(file: bytes | bytearray) -> None:
    """Refuse a JPEG whose scans or junk would keep a decoder busy.

    Counts as the decoder does: not what looks like a scan inside a segment (a thumbnail) or behind the end (a film).
    """
    position, scans, junk = 2, 0, 0
    while (marker := _SEGMENT.search(file, position)) and marker[1] != _END:
        junk += 0 if scans else marker.start() - position
        scans += marker[1] == _SCAN
        if scans > _MAX_SCANS:
            raise ImageTooLarge(
                f"The JPEG has more than {_MAX_SCANS} scans: re-save it as a baseline JPEG and send that."
            )
        position = marker.end() + int.from_bytes(file[marker.end() : marker.end() + 2], "big")
    if not scans or junk > _MAX_JUNK:
        raise ValueError("no scan, or too much junk before it")


def _check_pixels(width: int, height: int, limits: Limits) -> None:
    if width * height > limits.max_pixels:
        raise ImageTooLarge(
            f"The image has {width:,} x {height:,} pixels; at most {limits.max_pixels:,} are accepted: scale it down."
        )


def _check_tiles(image: Image.Image, limits: Limits) -> None:
    """Refuse a TIFF with giant tiles: each is decoded whole, however little of it lies inside the image."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        _check_pixels(tags.get(ExifTags.Base.TileWidth, 1), tags.get(ExifTags.Base.TileLength, 1), limits)


def _decode_jpeg(file: bytes | bytearray, image: Image.Image, min_side: int | None) -> np.ndarray:
    full_size = image.size
    if min_side is not None:
        image.draft(None, (min_side, min_side))  # the smallest of 1/1, 1/2, 1/4, 1/8 that keeps both sides >= min_side
    if image.size != full_size or image.mode not in ("L", "RGB"):  # torchvision can neither scale nor invert CMYK
        image.load()
        return colour.rgb_on_white(image)
    return _decode_with_torchvision(file, full_size)


def _decode_with_torchvision(file: bytes | bytearray, size: tuple[int, int]) -> np.ndarray:
    """Decode a whole JPEG at full size; a truncated one is an error."""
    writable = file if isinstance(file, bytearray) else bytearray(file)  # torch warns of read-only buffers
    encoded = torch.frombuffer(writable, dtype=torch.uint8)
    planes = _operator()(encoded, _RGB, False)  # (3, H, W), a view of H x W x 3
    pixels: np.ndarray = np.ascontiguousarray(planes.permute(1, 2, 0).numpy())
    if pixels.shape[1::-1] != size:  # the limits were checked against the other parser's size
        raise ValueError(f"the header says {size}, the decoder {pixels.shape}")
    return pixels


@functools.cache
def _operator() -> torch._ops.OpOverloadPacket:
    """Return torchvision's JPEG decoder, loaded from its library file.

    Importing torchvision for it would cost every worker 3.5 s and 160 MB, for networks and transforms that serving
    does not use; and torchvision.io.decode_jpeg is only a warning that it will move to TorchCodec.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ImportError("torchvision is not installed")
    library = next(Path(spec.origin).parent.glob("image*.so"))
    torch.ops.load_library(library)  # type: ignore[no-untyped-call]
    return torch.ops.image.decode_jpeg


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1-8, that `decode` undoes; loaded TIFFs are turned already, by Pillow."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - an image whose EXIF block is damaged is still an image
        return 1


def _upright(pixels: np.ndarray, turn: int) -> np.ndarray:
    """Undo an EXIF orientation (tag 274); values outside 2-8 change nothing."""
    if turn not in range(2, 9):
        return pixels
    turned = pixels.view("V3")[:, :, 0]  # (H, W), a pixel an item: copied whole, twice as fast
    if turn >= 5:
        turned = turned.T
    if turn in (3, 4, 7, 8):
        turned = turned[::-1]
    if turn in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    return np.ascontiguousarray(turned).view(np.uint8).reshape(*turned.shape, 3)
