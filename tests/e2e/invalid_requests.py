"""Every way to break a request that we know, with the status and code that it must get."""

import base64
import json
import struct
import zlib
from dataclasses import dataclass, field

import requests


@dataclass(frozen=True)
class Breakage:
    """A broken request and its answer."""

    name: str
    body: bytes
    status: int
    code: str
    headers: dict[str, str] = field(default_factory=dict)


JSON = {"Content-Type": "application/json"}


def breakages(good: bytes) -> list[Breakage]:
    """Break a good JPEG in every way."""
    return [
        Breakage("empty", b"", 400, "empty_body"),
        Breakage("text", b"a photograph of a flower", 415, "unsupported_image"),
        Breakage("truncated", good[: len(good) // 2], 400, "corrupt_image"),
        Breakage("only-the-start", good[:20], 400, "corrupt_image"),
        Breakage("huge-dimensions", huge_png(60_000, 60_000), 413, "image_too_large"),
        Breakage("eleven-megabytes", good + bytes(11_000_000), 413, "image_too_large"),
        Breakage("json-unfinished", b'{"instances": [', 400, "invalid_request", JSON),
        Breakage("json-deep", b"[" * 100_000, 400, "invalid_request", JSON),
        Breakage("json-unknown", b'{"images": []}', 400, "invalid_request", JSON),
        Breakage("json-is-an-image", good, 400, "invalid_request", JSON),
        Breakage("base64-broken", _v1("@@@@"), 400, "invalid_request", JSON),
        Breakage("base64-of-text", _v1(base64.b64encode(b"no image").decode()), 415, "unsupported_image", JSON),
        Breakage("base64-of-nothing", _v1(""), 400, "empty_body", JSON),
        Breakage("seventeen-images", _v1(*[base64.b64encode(good).decode()] * 17), 422, "invalid_parameter", JSON),
        Breakage("one-of-three-bad", _one_of_three_bad(good), 400, "corrupt_image", JSON),
        Breakage("v2-wrong-type", _v2("FP32", [1], [0.5]), 400, "invalid_request", JSON),
        Breakage("v2-wrong-shape", _v2("BYTES", [2], ["aGk="]), 400, "invalid_request", JSON),
        Breakage("top-k-word", good, 422, "invalid_parameter", {"x-top-k": "abc"}),
        Breakage("top-k-zero", good, 422, "invalid_parameter", {"x-top-k": "0"}),
        Breakage("top-k-too-large", good, 422, "invalid_parameter", {"x-top-k": "103"}),
        Breakage("format-unknown", good, 422, "invalid_parameter", {"x-format": "xml"}),
    ]


def error_of(answer: requests.Response) -> dict[str, str]:
    """Return an answer's error, code and message, in our form or in Open Inference V2's."""
    body = answer.json()
    error: dict[str, str] = body["error"]
    return {"code": body["code"], "message": body["error"]} if isinstance(error, str) else error


def huge_png(width: int, height: int) -> bytes:
    """A PNG that claims to be gigantic in a few bytes."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [_chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(bytes(1000))), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _v1(*texts: str) -> bytes:
    return json.dumps({"instances": [{"b64": text} for text in texts]}).encode()


def _one_of_three_bad(good: bytes) -> bytes:
    return _v1(*(base64.b64encode(data).decode() for data in (good, good[: len(good) // 2], good)))


def _v2(datatype: str, shape: list[int], data: list[object]) -> bytes:
    return json.dumps({"inputs": [{"name": "images", "datatype": datatype, "shape": shape, "data": data}]}).encode()
