"""Encodings: bytes as they travel, compressed or as text -> the bytes themselves, within a limit."""

import base64
import binascii
import contextlib
import gzip
import io
import zlib

from visionserve.errors import ImageTooLarge, InvalidRequest, UnsupportedEncoding

# https://zlib.net/manual.html, inflateInit2: the window's size, and which headers are accepted.
_ZLIB_OR_GZIP, _RAW_DEFLATE = 32 + zlib.MAX_WBITS, -zlib.MAX_WBITS
_URL_SAFE = str.maketrans("-_", "+/")
_GZIP = b"\x1f\x8b"
# One gzip file may be many, one behind the other, as parallel compressors write it: a block of 64 KiB each at least.
_GZIP_MEMBER, _MAX_GZIP_MEMBERS = b"\x1f\x8b\x08", 1_000
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
    try:
        content = _decompressed(body, max_bytes + 1)
    except EOFError:
        raise InvalidRequest(f"The {names[0]} body is truncated or has something behind its end.") from None
    except (zlib.error, OSError):
        raise InvalidRequest(f"The body is not valid {names[0]}, which its Content-Encoding says.") from None
    if len(content) > max_bytes:
        raise ImageTooLarge(f"The decompressed body is over {max_bytes:,} bytes: send a smaller file.")
    return content


def _decompressed(body: bytes | bytearray, size: int) -> bytes:
    """Return at most ``size`` bytes; raises EOFError, zlib.error or OSError where the stream is not whole."""
    if body.startswith(_GZIP) and body.find(_GZIP_MEMBER, 1) > 0:
        if body.count(_GZIP_MEMBER) > _MAX_GZIP_MEMBERS:
            raise ImageTooLarge(f"The gzip body has over {_MAX_GZIP_MEMBERS:,} members: compress the file in one.")
        with gzip.GzipFile(fileobj=io.BytesIO(body)) as stream:
            return stream.read(size)
    decompressor = _decompressor(body)
    content = decompressor.decompress(body, size)
    if len(content) < size and (not decompressor.eof or decompressor.unused_data.strip(b"\0")):
        raise EOFError
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
    URL-safe alphabet, missing padding, percent escapes, and a data URL (RFC 2397) around it, in base64 or not.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    text = text.strip()
    if is_data_url(text):
        header, comma, text = text.partition(",") if '"' not in text[:_MAX_DATA_URL_HEADER] else text.rpartition(",")
        if not comma or len(header) > _MAX_DATA_URL_HEADER:
            raise ValueError("not a data URL")
        if not "".join(header.lower().split()).endswith(";base64"):
            return percent_decoded(text.encode())
    if "%" in text:
        text = percent_decoded(text.encode()).decode()
    text = "".join(text.split()).translate(_URL_SAFE).rstrip("=")
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def is_data_url(text: str | bytes | bytearray) -> bool:
    """Whether a text begins as a data URL; no image file does."""
    start = text[: len(_DATA_URL)]
    return (start if isinstance(start, str) else start.decode("latin-1")).lower() == _DATA_URL


def percent_decoded(data: bytes) -> bytes:
    """Undo percent escapes (RFC 3986), in C: as quoted-printable, which has another sign for them."""
    return binascii.a2b_qp(data.replace(b"=", b"=3D").replace(b"%", b"="))
