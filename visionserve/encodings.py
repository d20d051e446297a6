"""Encodings: bytes as they travel, compressed or as text -> the bytes themselves, within a limit."""

import base64
import binascii
import contextlib
import zlib

from visionserve.errors import ImageTooLarge, InvalidRequest, UnsupportedEncoding

# https://zlib.net/manual.html, inflateInit2: the window's size, and which headers are accepted.
_ZLIB_OR_GZIP, _RAW_DEFLATE = 32 + zlib.MAX_WBITS, -zlib.MAX_WBITS
_URL_SAFE = str.maketrans("-_", "+/")
_GZIP = b"\x1f\x8b"
_DATA_URL = "data:"
_MAX_DATA_URL_HEADER = 256


def decompress(body: bytes | bytearray, content_encoding: str, max_bytes: int) -> bytes | bytearray:
    """Undo an HTTP Content-Encoding: gzip, deflate or identity.

    Raises:
        UnsupportedEncoding: another encoding, or several.
        ImageTooLarge: the body has more than ``max_bytes`` decompressed; no more than that is ever held.
        InvalidRequest: the body is not what its header says.
    """
    names = _names(content_encoding)
    if not names:
        return body
    if len(names) > 1 or names[0] not in ("gzip", "x-gzip", "deflate"):
        raise UnsupportedEncoding("Unsupported Content-Encoding: send the body uncompressed, as gzip or as deflate.")
    stream = _decompressor(body)
    try:
        content = stream.decompress(body, max_bytes + 1)
    except zlib.error:
        raise InvalidRequest(f"The body is not valid {names[0]}, which its Content-Encoding says.") from None
    if len(content) > max_bytes:
        raise ImageTooLarge(f"The decompressed body is over {max_bytes:,} bytes: send a smaller file.")
    if not stream.eof or stream.unused_data:
        raise InvalidRequest(f"The {names[0]} body is truncated or has something behind its end.")
    return content


def head(body: bytes | bytearray, content_encoding: str, size: int) -> bytes:
    """Return the first ``size`` bytes of a body, decompressed where that is possible."""
    if _names(content_encoding):
        with contextlib.suppress(zlib.error):
            return _decompressor(body).decompress(body, size)
    return bytes(body[:size])


def _names(content_encoding: str) -> list[str]:
    return [name for part in content_encoding.lower().split(",") if (name := part.strip()) not in ("", "identity")]


def _decompressor(body: bytes | bytearray) -> "zlib._Decompress":
    """Return a decompressor for gzip, or for deflate with the zlib header that RFC 9110 wants or without it."""
    framed = body[:2] == _GZIP or (
        len(body) > 1 and body[0] & 0x0F == zlib.DEFLATED and int.from_bytes(body[:2]) % 31 == 0
    )
    return zlib.decompressobj(_ZLIB_OR_GZIP if framed else _RAW_DEFLATE)


def from_base64(text: str) -> bytes:
    """Decode base64 as people send it; ValueError when it is something else.

    Accepted beside RFC 4648's standard form: white space and line breaks (as the program base64 writes them), the
    URL-safe alphabet, missing padding, and a data URL around it.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    text = text.strip()
    if text[: len(_DATA_URL)].lower() == _DATA_URL:
        header, comma, text = text.partition(",")
        if not comma or len(header) > _MAX_DATA_URL_HEADER or not header.lower().endswith(";base64"):
            raise ValueError("not a data URL in base64")
    text = "".join(text.split()).translate(_URL_SAFE).rstrip("=")
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
