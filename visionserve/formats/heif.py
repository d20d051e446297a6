"""HEIC and AVIF: recognised by their brands, opened by libheif and libavif, which the first such file imports.

Their sizes are read from the container before a picture is decoded. libheif refuses pictures that are larger than their
container says; both decode on one thread, for the other cores belong to other workers.
"""

import io
from types import ModuleType
from typing import Any

from PIL import Image

_TYPE = slice(4, 8)
_MAX_BRANDS = 64
_AVIF = frozenset((b"avif", b"avis"))
# HEVC in HEIF (ISO/IEC 23008-12, annex B); mif1 and msf1 say HEIF alone, so another brand has to name the codec.
_HEIC = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"))
# What a pixel takes while it is decoded, measured: planes, RGB, and the image that Pillow makes of an AVIF.
HEIC_BYTES, AVIF_BYTES = 4.6, 9.2


def recognise(file: bytes | bytearray) -> str | None:
    """Return "HEIF", "AVIF" or None."""
    if file[_TYPE] != b"ftyp":
        return None
    size = min(int.from_bytes(file[:4], "big"), 8 + 4 * _MAX_BRANDS)
    brands = {bytes(file[start : start + 4]) for start in (8, *range(16, size - 3, 4))}
    return "AVIF" if brands & _AVIF else "HEIF" if brands & _HEIC else None


class HeicFile:
    """An opened HEIC file: its size as displayed, its mode and its metadata. Orientation is undone by libheif."""

    format = "HEIF"

    def __init__(self, file: bytes | bytearray) -> None:
        images = _pillow_heif().open_heif(io.BytesIO(file), convert_hdr_to_8bit=True)
        self._image: Any = images[images.primary_index]
        self.size: tuple[int, int] = self._image.size
        self.mode: str = self._image.mode
        self.info: dict[str, Any] = self._image.info

    def decode(self) -> Image.Image:
        """Return the primary image, RGB, RGBA (RGBa where alpha is premultiplied) or grey, in 8 bits a value.

        Raises:
            ValueError: It is not of the size that its container states.
        """
        data, stride = self._image.data, self._image.stride  # loads it; a row may end in padding
        if self._image.size != self.size:
            raise ValueError(f"the picture has {self._image.size} pixels, its container says {self.size}")
        return Image.frombuffer(self.mode, self.size, data, "raw", self.mode, stride, 1)


def open_avif(file: io.BytesIO) -> Image.Image:
    """Open an AVIF with Pillow, without decoding it; upright after its EXIF orientation is undone."""
    from PIL import AvifImagePlugin

    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    return Image.open(file, formats=["AVIF"])


def _pillow_heif() -> ModuleType:
    import pillow_heif

    pillow_heif.options.DECODE_THREADS = 1
    pillow_heif.options.THUMBNAILS = pillow_heif.options.DEPTH_IMAGES = pillow_heif.options.AUX_IMAGES = False
    return pillow_heif
