"""Image headers: what a file would cost its decoder, read from its structure before a decoder opens it.

Each limit is far above what cameras and programs write, and below what takes a second (measured in docs/LOG.md). The
texts of a PNG and the comments of a GIF are left out of what the decoder gets, so they may be of any size.
"""

import contextlib
import itertools
import re
import struct
import zlib
from dataclasses import dataclass

from visionserve.errors import ImageTooLarge, UnsupportedImage

# A JPEG may hold any number of scans, each a pass over the whole image for a few bytes. Encoders write about ten; Skia
# and libtiff stop at 100, libjpeg-turbo's TJFLAG_LIMITSCANS at 500, on the advice of
# https://libjpeg-turbo.org/pmwiki/uploads/About/TwoIssueswiththeJPEGStandard.pdf
MAX_SCANS = 100
MAX_SCANNED_PIXELS = 1_000_000_000  # pixels x scans
MAX_SEGMENTS = 1_000
_MAX_JUNK = 1 << 16  # bytes between a JPEG's segments; Pillow looks through them one by one
_SEGMENT = re.compile(rb"\xff([\xc0-\xcf\xd9-\xfe])")  # the markers that libjpeg follows; restarts have no length
_SCAN, _END = 0xDA, 0xD9
JPEG_END = bytes([0xFF, _END])
_COEFFICIENT_BYTES = 2
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_HIERARCHICAL = frozenset((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF))
_JPEG_LS = 0xF7
_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_PLAIN_FRAMES, _PLAIN_BITS, _PLAIN_COMPONENTS = (0xC0, 0xC2), 8, (1, 3)
_METADATA = (0xE1, 0xE2)  # EXIF and XMP; colour profiles and further images

PNG_BIT_DEPTH, _PNG_COLOUR, _PNG_INTERLACE = 24, 25, 28  # where the header has them
_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # a pixel, by colour type
# Decompressed; interlaced rows are worth three times as much.
MAX_PNG_BYTES = 300_000_000
MAX_PNG_CHUNKS = 20_000  # programs write at least half a KiB of pixels into each
_MAX_PNG_TEXT = 1 << 20  # decompressed; Pillow refuses more
_PNG_COMPRESSIBLE = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
_MAX_PNG_METADATA = 4
# The two texts that may hold the orientation of the image.
_PNG_METADATA = re.compile(rb"(Raw profile type exif|XML:com\.adobe\.xmp)\0")

MAX_GIF_BLOCKS = 100_000
_GIF_IMAGE, _GIF_END, _GIF_EXTENSION = 0x2C, 0x3B, 0x21
_GIF_CONTROL = b"\x21\xf9"

# Pillow decodes run-length coded BMPs in Python.
MAX_RUN_LENGTH_PIXELS = 4_000_000
MAX_RUN_LENGTH_BYTES = 1 << 20
_RUN_LENGTH = (1, 2)

MAX_TIFF_ENTRIES = 500
MAX_TIFF_VALUES = 3 << 16  # of one entry, unless they are bytes: a palette of 16 bits has as many
MAX_TIFF_STRIPS = 1 << 16
_TIFF_BYTES = (1, 2, 6, 7)  # the types of texts, profiles and other blobs
_TIFF_STRIPS = (273, 324)  # StripOffsets, TileOffsets


@dataclass(frozen=True)
class JpegHeader:
    """What a JPEG states before its pixels.

    ``coefficient_bytes`` is how many bytes a pixel the decoder holds beside its output: coefficients, where they come
    in several scans. ``plain`` says that nothing but its size has to be known to decode it: 8 bits, grey or three
    colours, baseline or progressive, and no segment that could hold an orientation or a colour profile.
    """

    size: tuple[int, int]
    coefficient_bytes: float
    plain: bool


def read_jpeg(file: bytes | bytearray) -> JpegHeader:
    """Read the segments of a JPEG; refuse one of a rare kind, or that would keep a decoder busy.

    Counts as the decoder does: not what looks like a scan inside a segment (a thumbnail) or behind the end (a film).
    """
    position, segments, scans, junk = 2, 0, 0, 0
    frame = _Frame((0, 0), 0, 0, 0.0)
    buffered, plain = False, True
    while (marker := _SEGMENT.search(file, position)) and (kind := marker[1][0]) != _END:
        start = marker.end()
        segments += 1
        junk += 0 if scans else marker.start() - position
        if kind in _FRAMES and not frame.pixels:
            frame = _Frame.read(file, start)
            if frame.bits != _PLAIN_BITS or kind in _HIERARCHICAL:
                _refuse_jpeg(f"JPEG of {frame.bits} bits" if frame.bits != _PLAIN_BITS else "hierarchical JPEG")
            buffered = kind in _PROGRESSIVE
            plain &= kind in _PLAIN_FRAMES and frame.components in _PLAIN_COMPONENTS
        if kind == _JPEG_LS:
            _refuse_jpeg("JPEG-LS")
        plain &= kind not in _METADATA
        if kind == _SCAN:
            scans += 1
            buffered |= file[start + 2 : start + 3] < bytes([frame.components])
        if scans > MAX_SCANS or scans * frame.pixels > MAX_SCANNED_PIXELS:
            raise ImageTooLarge(
                f"The JPEG has more than {scans - 1} scans: re-save it as a baseline JPEG and send that."
            )
        if segments > MAX_SEGMENTS:
            raise ImageTooLarge(f"The JPEG has more than {MAX_SEGMENTS:,} segments: re-save it and send that.")
        position = start + int.from_bytes(file[start : start + 2], "big")
    if not scans or junk > _MAX_JUNK:
        raise ValueError("no scan, or too much junk before it")
    coefficient_bytes = _COEFFICIENT_BYTES * frame.samples_per_pixel if buffered else 0.0
    return JpegHeader(frame.size, coefficient_bytes, plain and frame.pixels > 0)


def _refuse_jpeg(kind: str) -> None:
    raise UnsupportedImage(f"Unsupported image format {kind}: re-save it as a baseline JPEG and send that.")


@dataclass(frozen=True)
class _Frame:
    """The frame header of a JPEG."""

    size: tuple[int, int]
    bits: int
    components: int
    samples_per_pixel: float

    @property
    def pixels(self) -> int:
        return self.size[0] * self.size[1]

    @classmethod
    def read(cls, file: bytes | bytearray, start: int) -> "_Frame":
        """Read the header whose length stands at ``start``: precision, height, width, and each component's sampling."""
        bits, height, width, components = struct.unpack_from(">BHHB", file, start + 2)
        factors = [(code >> 4) * (code & 15) for code in file[start + 9 : start + 8 + 3 * components : 3]]
        samples = sum(factors) / max(factors) if any(factors) else float(components)
        return cls((width, height), bits, components, samples)


def clean_png(file: bytes | bytearray) -> bytes | bytearray:
    """Return a PNG without its texts, but for those that may hold the orientation; refuse one of endless chunks."""
    _check_png_bytes(file)
    kept: list[bytes | bytearray] = [file[:8]]
    position, count, start, needed = 8, 0, 8, 0
    while position + 8 <= len(file):
        length, kind = struct.unpack_from(">I4s", file, position)
        end = position + 12 + length
        count += 1
        if count > MAX_PNG_CHUNKS:
            raise ImageTooLarge(f"The PNG has more than {MAX_PNG_CHUNKS:,} chunks: re-save it and send that.")
        if kind in _PNG_COMPRESSIBLE:
            if needed < _MAX_PNG_METADATA and _is_needed(kind, file[position + 8 : end - 4]):
                needed += 1
            else:
                kept.append(file[start:position])
                start = end
        position = end
    return b"".join([*kept, file[start:]]) if len(kept) > 1 else file


def _check_png_bytes(file: bytes | bytearray) -> None:
    width, height = struct.unpack_from(">II", file, 16)
    bits = file[PNG_BIT_DEPTH] * _PNG_SAMPLES.get(file[_PNG_COLOUR], 1)
    if width * height * bits / 8 * (3 if file[_PNG_INTERLACE] else 1) > MAX_PNG_BYTES and min(width, height) > 0:
        raise ImageTooLarge(
            f"The PNG has {width:,} x {height:,} pixels of {bits} bits"
            f"{', interlaced' if file[_PNG_INTERLACE] else ''}, which takes too long: scale it down or send a JPEG."
        )


def _is_needed(kind: bytes, content: bytes | bytearray) -> bool:
    """Whether a text holds metadata, or the chunk is a colour profile; neither where it is larger than Pillow takes."""
    if kind != b"iCCP" and not _PNG_METADATA.match(content):
        return False
    for start in _compressed_parts(kind, content):
        with contextlib.suppress(zlib.error):
            if len(zlib.decompressobj().decompress(content[start:], _MAX_PNG_TEXT + 1)) > _MAX_PNG_TEXT:
                return False
    return len(content) <= _MAX_PNG_TEXT


def _compressed_parts(kind: bytes, content: bytes | bytearray) -> list[int]:
    """Return where the compressed part of a chunk begins, if it has one."""
    keyword_end = content.find(0) + 1
    if kind in (b"zTXt", b"iCCP"):
        return [keyword_end + 1]
    if kind == b"iTXt" and content[keyword_end : keyword_end + 1] == b"\1":
        language_end = content.find(0, keyword_end + 2) + 1
        return [content.find(0, language_end) + 1]
    return []


def clean_gif(file: bytes | bytearray) -> bytes | bytearray:
    """Return a GIF without what comes before its first image, but for the colours and the control of that image."""
    start = 13 + (3 << ((file[10] & 7) + 1) if file[10] & 0x80 else 0)
    position, control = start, b""
    for _ in range(MAX_GIF_BLOCKS):
        if file[position] in (_GIF_IMAGE, _GIF_END):
            return file if position == start else b"".join([file[:start], control, file[position:]])
        end = _extension_end(file, position) if file[position] == _GIF_EXTENSION else position + 1  # junk is skipped
        if file[position : position + 2] == _GIF_CONTROL:
            control = bytes(file[position:end])
        position = end
    raise ImageTooLarge(f"The GIF has more than {MAX_GIF_BLOCKS:,} blocks before its first image: re-save it.")


def _extension_end(file: bytes | bytearray, position: int) -> int:
    position += 2
    for _ in range(MAX_GIF_BLOCKS):
        size = file[position]
        position += 1 + size
        if size == 0:
            return position
    raise ImageTooLarge(f"An extension of the GIF has more than {MAX_GIF_BLOCKS:,} blocks: re-save it.")


def check_bmp(file: bytes | bytearray) -> None:
    """Refuse a large run-length coded BMP."""
    if len(file) < 34 or int.from_bytes(file[14:18], "little") < 40:  # an older header knows no compression
        return
    width, height, compression = struct.unpack_from("<ii4xI", file, 18)
    if compression in _RUN_LENGTH and (abs(width * height) > MAX_RUN_LENGTH_PIXELS or len(file) > MAX_RUN_LENGTH_BYTES):
        raise ImageTooLarge(
            f"A run-length coded BMP may have {MAX_RUN_LENGTH_PIXELS:,} pixels and {MAX_RUN_LENGTH_BYTES:,} bytes: "
            "send a PNG or JPEG."
        )


def check_tiff(file: bytes | bytearray) -> None:
    """Refuse a TIFF whose first directory has endless entries, values, strips or tiles."""
    order = "<" if file[:2] == b"II" else ">"
    big = 43 in file[2:4]
    head, count_format, entry_format = ("Q", "Q", "HHQ8x") if big else ("I", "H", "HHI4x")
    (start,) = struct.unpack_from(order + head, file, 8 if big else 4)
    (entries,) = struct.unpack_from(order + count_format, file, start)
    if entries > MAX_TIFF_ENTRIES:
        raise ImageTooLarge(f"The TIFF has more than {MAX_TIFF_ENTRIES} entries: re-save it and send that.")
    first, size = start + struct.calcsize(order + count_format), struct.calcsize(order + entry_format)
    for position in itertools.islice(itertools.count(first, size), entries):
        tag, kind, values = struct.unpack_from(order + entry_format, file, position)
        if tag in _TIFF_STRIPS and values > MAX_TIFF_STRIPS:
            raise ImageTooLarge(
                f"The TIFF has more than {MAX_TIFF_STRIPS:,} strips or tiles: re-save it and send that."
            )
        if kind not in _TIFF_BYTES and values > MAX_TIFF_VALUES:
            raise ImageTooLarge(f"An entry of the TIFF has more than {MAX_TIFF_VALUES:,} values: re-save it.")
