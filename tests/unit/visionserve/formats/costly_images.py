"""Small files that are legal, or nearly, and would cost a decoder seconds or hundreds of megabytes."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

from PIL import Image

MEGAPIXELS_49 = (7000, 7000)  # just below the limit of 50 million pixels


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, bits: int, colour: int, *, interlaced: bool = False, extra: bytes = b"") -> bytes:
    """A black PNG; ``colour`` as in its header: 0 grey, 2 RGB, 3 palette, 4 grey with alpha, 6 RGBA."""
    bits_per_pixel = bits * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    sizes = [(width, height)]
    if interlaced:  # Adam7: start and step of every pass
        passes = [(0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2), (0, 1, 1, 2)]
        sizes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, dx, y, dy in passes if width > x and height > y]
    size = sum((1 + (columns * bits_per_pixel + 7) // 8) * rows for columns, rows in sizes)
    stream = zlib.compressobj(6)
    pixels = (
        b"".join(stream.compress(bytes(min(1 << 20, size - at))) for at in range(0, size, 1 << 20)) + stream.flush()
    )
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    palette = png_chunk(b"PLTE", bytes(3)) if colour == 3 else b""
    chunks = png_chunk(b"IHDR", header) + palette + extra + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def bmp(width: int, height: int, runs: bytes, bits: int = 8) -> bytes:
    """A BMP of run-length coded pixels."""
    palette = bytes(4 << bits)
    start = 54 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 1 if bits == 8 else 2, len(runs), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start) + header + palette + runs


Entry = tuple[int, int, int, bytes]  # tag, type, count, values


def tiff(entries: list[Entry], pixels: bytes = bytes(8)) -> bytes:
    """A little-endian TIFF with one directory; the pixels begin at offset 8."""
    position, data, directory = 8 + len(pixels), b"", b""
    for tag, kind, count, values in sorted(entries):
        directory += struct.pack("<HHI", tag, kind, count)
        directory += values.ljust(4, b"\0") if len(values) <= 4 else struct.pack("<I", position + len(data))
        data += values if len(values) > 4 else b""
    return (
        b"II*\0"
        + struct.pack("<I", position + len(data))
        + pixels
        + data
        + struct.pack("<H", len(entries))
        + directory
        + bytes(4)
    )


def short(tag: int, value: int) -> Entry:
    return tag, 3, 1, struct.pack("<H", value)


def long(tag: int, value: int) -> Entry:
    return tag, 4, 1, struct.pack("<I", value)


def grey_tiff(width: int, height: int, *more: Entry) -> bytes:
    return tiff([long(256, width), long(257, height), short(258, 8), short(259, 1), short(262, 1), *more])


def strips(count: int) -> bytes:
    offsets = (273, 3, count, struct.pack("<H", 8) * count)
    sizes = (279, 3, count, struct.pack("<H", 1) * count)
    return grey_tiff(1, count, offsets, sizes, short(278, 1))


def tiles(count: int) -> bytes:
    offsets = (324, 3, count, struct.pack("<H", 8) * count)
    sizes = (325, 3, count, struct.pack("<H", 1) * count)
    return grey_tiff(1, count, offsets, sizes, short(322, 1), short(323, 1))


def directory(count: int) -> bytes:
    """A BigTIFF with a directory of that many entries."""
    entries = b"".join(struct.pack("<HHQQ", 700 + n % 60_000, 3, 1, 0) for n in range(count))
    return b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, count) + entries + bytes(8)


def saved(image: Image.Image, image_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def grey(mode: str = "RGB", size: tuple[int, int] = MEGAPIXELS_49) -> Image.Image:
    return Image.new(
        mode,
        size,
        128 if len(Image.new(mode, (1, 1)).getbands()) == 1 else (128,) * len(Image.new(mode, (1, 1)).getbands()),
    )


def jpeg_with(segments: bytes, image: Image.Image | None = None, **options: Any) -> bytes:
    file = saved(image or grey(size=(64, 64)), "JPEG", **options)
    return file[:2] + segments + file[2:]


def gif_with(blocks: bytes) -> bytes:
    file = saved(grey("L", (64, 64)), "GIF")
    start = file.index(b"\x2c", 13)
    return file[:start] + blocks + file[start:]


def exif_segments(count: int) -> bytes:
    """EXIF in many segments, which Pillow joins one by one."""
    return b"\xff\xe1\x00\x09Exif\0\0x" * count


FILES: dict[str, Callable[[], bytes]] = {
    "tiff-strips": lambda: strips(2_400_000),
    "tiff-tiles": lambda: tiles(2_400_000),
    "tiff-directory": lambda: directory(500_000),
    "tiff-bits": lambda: tiff([long(256, 1), long(257, 1), (258, 3, 5_000_000, bytes(10_000_000))]),
    "tiff-lzw": lambda: saved(grey(), "TIFF", compression="tiff_lzw"),
    "tiff-lzw-strips": lambda: saved(grey(), "TIFF", compression="tiff_lzw", tiffinfo={278: 1}),
    "tiff-deflate": lambda: saved(grey("RGBA"), "TIFF", compression="tiff_adobe_deflate"),
    "tiff-packbits": lambda: saved(grey("L"), "TIFF", compression="packbits"),
    "tiff-group4": lambda: saved(Image.new("1", MEGAPIXELS_49), "TIFF", compression="group4"),
    "tiff-jpeg": lambda: saved(grey(), "TIFF", compression="jpeg"),
    "tiff-float": lambda: saved(Image.new("F", MEGAPIXELS_49), "TIFF", compression="tiff_adobe_deflate"),
    "tiff-int": lambda: saved(Image.new("I", MEGAPIXELS_49), "TIFF", compression="tiff_adobe_deflate"),
    "tiff-lab": lambda: saved(grey("LAB"), "TIFF", compression="tiff_adobe_deflate"),
    "tiff-turned": lambda: saved(grey(), "TIFF", compression="tiff_adobe_deflate", tiffinfo={274: 6}),
    "bmp-one-run": lambda: bmp(*MEGAPIXELS_49, b"\x01\x00\x00\x01"),
    "bmp-runs": lambda: bmp(*MEGAPIXELS_49, (b"\xff\x00" * 28 + b"\0\0") * 500 + b"\0\1"),
    "bmp-small-runs": lambda: bmp(3000, 3000, b"\x01\x00" * 5_000_000 + b"\0\1"),
    "bmp-4-bit": lambda: bmp(*MEGAPIXELS_49, b"\x01\x00\x00\x01", bits=4),
    "jpeg-segments": lambda: jpeg_with(b"\xff\xfe\0\x02" * 2_600_000),
    "jpeg-exif": lambda: jpeg_with(exif_segments(900_000)),
    "jpeg-wide": lambda: saved(grey(size=(65_500, 763)), "JPEG"),
    "jpeg-wide-turned": lambda: saved(
        grey(size=(65_500, 763)),
        "JPEG",
        exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0",
    ),
    "jpeg-baseline": lambda: saved(grey(), "JPEG"),
    "jpeg-cmyk": lambda: saved(grey("CMYK"), "JPEG"),
    "jpeg-progressive": lambda: saved(grey(), "JPEG", progressive=True),
    "jpeg-progressive-444": lambda: saved(grey(), "JPEG", progressive=True, subsampling=0),
    "jpeg-progressive-cmyk": lambda: saved(grey("CMYK"), "JPEG", progressive=True),
    "png-16-bit": lambda: png(*MEGAPIXELS_49, 16, 6),
    "png-16-bit-grey": lambda: png(*MEGAPIXELS_49, 16, 0),
    "png-interlaced": lambda: png(*MEGAPIXELS_49, 16, 6, interlaced=True),
    "png-interlaced-rgb": lambda: png(*MEGAPIXELS_49, 8, 2, interlaced=True),
    "png-rgb": lambda: png(*MEGAPIXELS_49, 8, 2),
    "png-1-bit": lambda: png(*MEGAPIXELS_49, 1, 0),
    "png-palette-alpha": lambda: png(*MEGAPIXELS_49, 8, 3, extra=png_chunk(b"tRNS", b"\0")),
    "png-narrow": lambda: png(1, 49_999_999, 8, 0),
    "png-chunks": lambda: png(8, 8, 8, 2, extra=png_chunk(b"teSt", b"") * 800_000),
    "png-texts": lambda: png(8, 8, 8, 2, extra=b"".join(png_chunk(b"tEXt", b"k%d\0v" % n) for n in range(400_000))),
    "png-zipped-texts": lambda: png(
        8, 8, 8, 2, extra=png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1 << 20))) * 5_000
    ),
    "webp-lossless": lambda: saved(grey(), "WEBP", lossless=True),
    "webp-alpha": lambda: saved(grey("RGBA"), "WEBP", lossless=True),
    "gif": lambda: saved(grey("L"), "GIF"),
    "gif-interlaced": lambda: saved(grey("L"), "GIF", interlace=1),
    "gif-comments": lambda: gif_with((b"\x21\xfe" + b"\x01x" * 4 + b"\0") * 900_000),
    "gif-one-comment": lambda: gif_with(b"\x21\xfe" + b"\x01x" * 4_500_000 + b"\0"),
    "gif-extensions": lambda: gif_with(b"\x21\x01\0" * 3_000_000),
}
