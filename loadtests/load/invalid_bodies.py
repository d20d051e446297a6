"""Broken bodies: what clients send by mistake or in malice. Every service must refuse each of them with a 4xx."""

import random
import struct
import zlib


def bodies(jpeg: bytes) -> dict[str, bytes]:
    """Return a body for each kind of breakage; ``jpeg`` is a sound photograph to spoil."""
    return {
        "empty": b"",
        "text": b"this is not a photograph\n" * 20,
        "noise": random.Random(7).randbytes(4096),
        "header only": jpeg[:64],
        "truncated": jpeg[: len(jpeg) // 3],
        "gigapixel": _gigapixel_png(),
        "markup": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
    }


def _gigapixel_png() -> bytes:
    """Return a few bytes that declare 60,000 x 60,000 pixels: decoding them would take 10 GB."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + _chunk(b"IDAT", zlib.compress(bytes(1024))) + _chunk(b"IEND", b"")


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
