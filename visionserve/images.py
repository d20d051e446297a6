"""Bytes of an image file -> one upright RGB array, within limits that hold before a pixel is decoded.

    bytes -> size limit -> signature -> headers -> pixel, memory and time limits -> decoder -> RGB on white -> upright

Pillow reads every header: 3 % of the time of a 500 x 333 JPEG. torchvision then decodes the plain JPEGs and WebPs: the
same libjpeg-turbo and libwebp, the same pixels, in less memory and time. JPEGs at a reduced scale and all other images
stay with Pillow. Colour profiles are ignored, in training as in serving.
"""

import functools
import importlib.util
import io
import re
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, TiffImagePlugin, WebPImagePlugin

from visionserve import colour, heif, image_headers
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

# Named in the answer, for nobody knows from its suffix why a picture is refused.
_UNSUPPORTED = {
    "JPEG XL": re.compile(rb"\xff\n|\0\0\0\x0cJXL "),
    "JPEG 2000": re.compile(rb"\xff\x4f\xff\x51|\0\0\0\x0cjP"),
    "SVG": re.compile(rb"(?s)\s*(<\?xml.{0,200}?)?<svg"),
    "PDF": re.compile(rb"%PDF"),
    "video": re.compile(rb"(?s)....ftyp(isom|iso[2-6]|mp4|qt  |M4V|3gp)"),
    "camera raw": re.compile(rb"(?s)....ftypcrx |FUJIFILMCCD-RAW|IIRO|IIU\0"),
    "PSD": re.compile(rb"8BPS"),
    "ICO": re.compile(rb"\0\0[\1\2]\0"),
}
_SEND = "send JPEG, PNG, WebP, HEIC, AVIF, GIF, BMP or TIFF."
# CPU time of one thread. Decoders in C that get a whole file at once are bounded by pixels and headers alone.
MAX_DECODE_S = 3.0
_CLEAN: dict[str, Callable[[bytes | bytearray], bytes | bytearray]] = {
    "PNG": image_headers.clean_png,
    "GIF": image_headers.clean_gif,
}
_CHECK: dict[str, Callable[[bytes | bytearray], None]] = {
    "BMP": image_headers.check_bmp,
    "TIFF": image_headers.check_tiff,
}
# Of Pillow's pixels; all other modes take four bytes.
_PILLOW_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}
_PILLOW_ROW_BYTES = 8  # a pointer
_RGB_BYTES = 3

_PILLOW = re.compile(r"PIL\.")
_AS_IT_IS, _AS_RGB = 0, 3  # torchvision.io.ImageReadMode


@dataclass(frozen=True)
class Limits:
    """What a file may cost: its own bytes, its pixels as its header states them, and what its decoder will hold.

    ``max_memory`` bounds the last of them, in bytes, where the image may be decoded at a reduced size, as in serving;
    the launcher's plan has as much for every worker.
    """

    max_bytes: int = 10 * 1024 * 1024
    max_pixels: int = 50_000_000
    max_memory: int = 165_000_000


DEFAULT_LIMITS = Limits()


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
    if container := heif.recognise(file):
        return container
    for name, signature in _UNSUPPORTED.items():
        if signature.match(file):
            raise UnsupportedImage(f"Unsupported image format {name}: {_SEND}")
    raise UnsupportedImage(f"Unsupported image format: {_SEND}")


def _silence_pillow() -> None:
    """Ignore Pillow's warnings about odd files: what matters becomes an error.

    A lasting filter, for Pillow's modules alone. warnings.catch_warnings is not safe among threads, and each use makes
    all other libraries repeat the warnings that they give once.
    """
    entry = ("ignore", None, Warning, _PILLOW, 0)
    if not warnings.filters or warnings.filters[0] != entry:
        warnings.filterwarnings("ignore", module=_PILLOW.pattern)


def _decode(file: bytes | bytearray, image_format: str, limits: Limits, min_side: int | None) -> np.ndarray:
    coefficient_bytes = image_headers.check_jpeg(file) if image_format == "JPEG" else 0.0
    if image_format in _CHECK:
        _CHECK[image_format](file)
    if image_format in _CLEAN:
        file = _CLEAN[image_format](file)
    if image_format == "HEIF":
        return _decode_heic(file, limits, min_side)
    # A JPEG's segments and scans are bounded above, and its header takes Pillow some 70 reads: they stay in C.
    readable = io.BytesIO(file) if image_format == "JPEG" else _Timed(file)
    image = heif.open_avif(readable) if image_format == "AVIF" else Image.open(readable, formats=[image_format])
    _check_pixels(*image.size, limits)
    plan = _Plan(file, image, _may_be_turned(file, image), limits, min_side)
    if image_format == "JPEG":
        pixels = _decode_jpeg(plan, coefficient_bytes)
    elif image_format == "WEBP" and not getattr(image, "is_animated", True):
        pixels = _decode_webp(plan)
    else:
        pixels = _decode_with_pillow(plan)
    return _upright(pixels, orientation(image))


class _Timed(io.BytesIO):
    """A file that ends decoding when it takes too long: Pillow's decoders in Python read it piece by piece."""

    def __init__(self, file: bytes | bytearray) -> None:
        super().__init__(file)
        self._deadline = time.thread_time() + MAX_DECODE_S

    def read(self, size: int | None = -1, /) -> bytes:
        if time.thread_time() > self._deadline:
            raise ImageTooLarge("The image takes too long to decode: re-save it as a baseline JPEG and send that.")
        return super().read(size)


@dataclass(frozen=True)
class _Plan:
    """An opened file and how to decode it."""

    file: bytes | bytearray
    image: Any
    turned: bool
    limits: Limits
    min_side: int | None

    @property
    def factor(self) -> int:
        """By how much the image may be reduced: 1, 2, 4 or 8."""
        scale = min(self.image.size) // self.min_side if self.min_side else 1
        return max(factor for factor in (1, 2, 4, 8) if factor == 1 or factor <= scale)

    def check_memory(self, held: float, result: float) -> None:
        """Refuse an image whose decoder would hold ``held`` bytes beside a result of ``result`` bytes."""
        needed = held + result * (1 + self.turned)
        if self.min_side is not None and needed > self.limits.max_memory:
            raise ImageTooLarge(
                f"The image would take {needed / 1e6:.0f} MB to decode; at most {self.limits.max_memory / 1e6:.0f} are "
                "available: scale it down or send it as a baseline JPEG."
            )


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


def _decode_with_pillow(plan: _Plan) -> np.ndarray:
    image = plan.image
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
        colour.scale_transparency(image, plan.file[image_headers.PNG_BIT_DEPTH])
    return colour.rgb_on_white(image, plan.factor)


def _decode_heic(file: bytes | bytearray, limits: Limits, min_side: int | None) -> np.ndarray:
    opened = heif.HeicFile(file)
    _check_pixels(*opened.size, limits)
    plan = _Plan(file, opened, False, limits, min_side)
    pixels = opened.size[0] * opened.size[1]
    plan.check_memory(heif.HEIC_BYTES * pixels, _RGB_BYTES * pixels / plan.factor**2)
    return colour.rgb_on_white(opened.decode(), plan.factor)


def _decode_webp(plan: _Plan) -> np.ndarray:
    """Decode a WebP of one frame."""
    pixels = plan.image.width * plan.image.height
    lossless = 4 if b"VP8L" in plan.file else 0
    opaque = plan.image.mode == "RGB"
    plan.check_memory((lossless + (3 if opaque else 4)) * pixels, 0 if opaque else _RGB_BYTES * pixels / plan.factor**2)
    decoded = _decode_with_torchvision("decode_webp", plan.file, plan.image.size, _AS_RGB if opaque else _AS_IT_IS)
    return decoded if opaque else colour.rgb_on_white(Image.fromarray(decoded, "RGBA"), plan.factor)


def _decode_jpeg(plan: _Plan, coefficient_bytes: float) -> np.ndarray:
    image, full_size = plan.image, plan.image.size
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
        return colour.rgb_on_white(image)
    return _decode_with_torchvision("decode_jpeg", plan.file, full_size, _AS_RGB, False)


def _decode_with_torchvision(
    name: str, file: bytes | bytearray, size: tuple[int, int], *arguments: object
) -> np.ndarray:
    """Decode a whole JPEG or WebP at full size; a truncated one is an error."""
    writable = file if isinstance(file, bytearray) else bytearray(file)  # torch warns of read-only buffers
    encoded = torch.frombuffer(writable, dtype=torch.uint8)
    planes = getattr(_operators(), name)(encoded, *arguments)  # (3 or 4, H, W), a view of H x W x 3 or 4
    pixels: np.ndarray = np.ascontiguousarray(planes.permute(1, 2, 0).numpy())
    if (
        pixels.shape[1::-1] != size
    ):  # two parsers, two opinions: the limits were checked against the other parser's size
        raise ValueError(f"the header says {size}, the decoder {pixels.shape}")
    return pixels


@functools.cache
def _operators() -> torch._ops._OpNamespace:
    """Return torchvision's decoders, loaded from their library file.

    Importing torchvision for it would cost every worker 3.5 s and 160 MB, for networks and transforms that serving
    does not use; and torchvision.io.decode_jpeg warns only that it will move to TorchCodec.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ImportError("torchvision is not installed")
    library = next(Path(spec.origin).parent.glob("image*.so"))
    torch.ops.load_library(library)  # type: ignore[no-untyped-call]
    return torch.ops.image


def _may_be_turned(file: bytes | bytearray, image: Image.Image) -> bool:
    """Whether an opened file has an orientation to undo; of a PNG, which may state it last, whether it may have one."""
    if image.format == "PNG":  # asked for its EXIF, Pillow would decode it
        return any(name in file for name in (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp"))
    return orientation(image) in range(2, 9)


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
