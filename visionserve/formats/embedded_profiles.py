"""Embedded profiles: which colour space a file states, as an ICC profile; None is sRGB.

An ICC profile stands in the APP2 segments of a JPEG, the iCCP chunk of a PNG, the ICCP chunk of a WebP, tag 34675 of a
TIFF, the colr box of HEIC and AVIF. Without one, numbers may name the space: see rgb_spaces.py. Where a file states
several, the order is that of the PNG and HEIF specifications: cICP, ICC, sRGB, gAMA and cHRM; ICC, nclx. What a GIF or
BMP states is ignored.
"""

import contextlib
import struct
from collections.abc import Iterator
from typing import Any

from PIL import ExifTags, Image

from visionserve.formats import rgb_spaces

MAX_PROFILE_BYTES = 4 << 20  # those of printing presses have up to three
_EXIF_SEGMENT = 1 << 16
_UNCALIBRATED, _ADOBE_RGB = 0xFFFF, "R03"  # Exif 2.3 and DCF 2.0: how cameras mark Adobe RGB
_MAX_BOXES = 1_000


def embedded_profile(file: bytes | bytearray, image: Any) -> bytes | None:
    """Return the profile of an opened file.

    Args:
        image: Pillow's, or a HeicFile: whatever has ``format`` and ``info``.
    """
    if image.format == "PNG" and (code_points := _png_code_points(file)):
        return rgb_spaces.from_code_points(*code_points)
    profile = image.info.get("icc_profile")
    if profile:
        return bytes(profile) if len(profile) <= MAX_PROFILE_BYTES else None
    if image.format == "PNG":
        return _png_primaries(image.info)
    if image.format == "HEIF" and (nclx := image.info.get("nclx_profile")):
        return rgb_spaces.from_code_points(int(nclx["color_primaries"]), int(nclx["transfer_characteristics"]))
    if image.format == "AVIF" and (code_points := primary_item_code_points(file)):
        return rgb_spaces.from_code_points(*code_points)
    if image.format in ("JPEG", "MPO") and file.find(b"R03\0", 0, _EXIF_SEGMENT) > 0 and _is_adobe_rgb(image):
        return rgb_spaces.adobe_rgb()
    return None


def _png_code_points(file: bytes | bytearray) -> tuple[int, int] | None:
    """Return primaries and transfer of the cICP chunk, which stands before the pixels."""
    at = file.find(b"\0\0\0\4cICP", 8, file.find(b"IDAT"))
    return (file[at + 8], file[at + 9]) if at > 0 else None


def _png_primaries(info: dict[str, Any]) -> bytes | None:
    """Return the profile of gAMA and cHRM, as browsers do only where both are there and sRGB is not."""
    gamma, chromaticity = info.get("gamma"), info.get("chromaticity")
    if gamma is None or chromaticity is None or "srgb" in info:
        return None
    values = tuple(map(float, chromaticity))
    return rgb_spaces.from_png(float(gamma), values[2:] + values[:2])  # the file has white first


def _is_adobe_rgb(image: Image.Image) -> bool:
    try:
        exif = image.getexif()
        space = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace)
        index = exif.get_ifd(ExifTags.IFD.Interop).get(ExifTags.Interop.InteropIndex)
    except Exception:  # noqa: BLE001 - an image whose EXIF block is damaged is still an image
        return False
    return space == _UNCALIBRATED and index == _ADOBE_RGB


def primary_item_code_points(file: bytes | bytearray) -> tuple[int, int] | None:
    """Return colour primaries and transfer characteristics of the primary image of an AVIF, from its colr box.

    Pillow hands out the ICC profile of an AVIF, but not these. None where there are none, or the boxes are broken.
    """
    with contextlib.suppress(struct.error, IndexError):
        for kind, content in _primary_item_properties(memoryview(file)):
            if kind == b"colr" and bytes(content[:4]) == b"nclx":
                primaries, transfer = struct.unpack_from(">HH", content, 4)
                return primaries, transfer
    return None


def is_cropped(file: bytes | bytearray, size: tuple[int, int]) -> bool:
    """Whether the primary image of an AVIF of (width, height) pixels states a smaller clean aperture, its clap box."""
    with contextlib.suppress(struct.error, IndexError):
        for kind, content in _primary_item_properties(memoryview(file)):
            if kind == b"clap":
                width, width_divisor, height, height_divisor = struct.unpack_from(">4I", content)
                return (width, height) != (size[0] * width_divisor, size[1] * height_divisor)
    return False


def _primary_item_properties(view: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yield type and content of the primary image's properties (ISO/IEC 23008-12, 9.3)."""
    meta = _first(view, b"meta")
    if meta is None:
        return
    boxes = meta[4:]
    primary, properties = _first(boxes, b"pitm"), _first(boxes, b"iprp")
    if primary is None or properties is None:
        return
    item = int.from_bytes(primary[4 : 8 if primary[0] else 6], "big")
    container, association = _first(properties, b"ipco"), _first(properties, b"ipma")
    if container is None or association is None:
        return
    kept = list(_boxes(container))
    for index in _associated(association, item):
        if 0 < index <= len(kept):
            yield kept[index - 1]


def _boxes(view: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yield type and content of each box (ISO/IEC 14496-12); nothing more once one is broken."""
    position = 0
    for _ in range(_MAX_BOXES):
        if position + 8 > len(view):
            return
        size, kind = struct.unpack_from(">I4s", view, position)
        start = position + 8
        if size == 1 and start + 8 <= len(view):
            (size,) = struct.unpack_from(">Q", view, start)
            start += 8
        end = position + size if size else len(view)
        if end < start or end > len(view):
            return
        yield kind, view[start:end]
        position = end


def _first(view: memoryview, kind: bytes) -> memoryview | None:
    return next((content for name, content in _boxes(view) if name == kind), None)


def _associated(association: memoryview, item: int) -> list[int]:
    """Return the places of an item's properties, from 1, as its ipma box has them."""
    wide_item, wide_index = association[0] > 0, association[3] & 1
    (entries,) = struct.unpack_from(">I", association, 4)
    position = 8
    for _ in range(min(entries, _MAX_BOXES)):
        (entry,) = struct.unpack_from(">I" if wide_item else ">H", association, position)
        position += 4 if wide_item else 2
        count = association[position]
        position += 1
        width = 2 if wide_index else 1
        indices = [
            int.from_bytes(association[start : start + width], "big") & (0x7FFF if wide_index else 0x7F)
            for start in range(position, position + count * width, width)
        ]
        if entry == item:
            return indices
        position += count * width
    return []
