"""Request parsing: a raw request -> encoded images and options, in three protocols.

    plain  the image file is the body, or one field of a form; a form with several files is answered as in v1
    v1     KServe V1 JSON: {"instances": [{"b64": "..."}], "parameters": {"top_k": 3}}
    v2     Open Inference V2 JSON: {"id": "...", "inputs": [{"name": "images", "datatype": "BYTES", "shape": [n],
           "data": ["<base64>", ...]}], "parameters": {"top_k": 3}}, or with binary data, see binary_tensors.py

An option is looked for in the JSON ``parameters``, the form or query, then in the header ``x-top-k`` or ``x-format``.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from visionserve import binary_tensors, encodings
from visionserve.errors import EmptyBody, InvalidParameter, InvalidRequest, MethodNotAllowed

Protocol = Literal["plain", "v1", "v2"]
Format = Literal["json", "png"]
Field = bytes | bytearray | str | Mapping[str, Any]

OPTIONS = ("top_k", "format")
DEFAULT_TOP_K = 5
# One request must not keep its batch mates waiting for long: more images go into more requests.
MAX_IMAGES = 16
# What a body may be once it is decompressed: as much as servers accept uncompressed (max_request_size).
MAX_BODY_BYTES = 16 << 20
# A request of 16 images needs a hundred values; millions of them would take seconds and hundreds of MB to parse.
MAX_JSON_VALUES = 10_000
_MAX_DIGITS = 18  # of a number in JSON, so that arithmetic with it is cheap
_MAX_DIMENSIONS = 8
_BYTE_ORDER_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"
BODY_FIELDS = ("body", "data")
# How many bytes of an invalid body are searched for its protocol, and of any body for the brace that JSON begins with.
_SEARCHED, _BEGINNING = 1024, 64
_JPEG = b"\xff\xd8"  # so begins most of what comes, and no text
_WHOLE_NUMBER = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class RawRequest:
    """A request as a server hands it over.

    ``fields`` holds the body under "body" or "data", or the fields of a form by their names, and query parameters;
    ``headers`` have lower-case names; from ``expires_at`` on, in seconds since 1970, nobody waits for the response.
    """

    id: str
    fields: Mapping[str, Field]
    headers: Mapping[str, str]
    explain: bool = False
    expires_at: float = math.inf


@dataclass(frozen=True)
class Request:
    """A parsed request: encoded images, and what to answer about them."""

    images: tuple[bytes | bytearray, ...]
    protocol: Protocol
    top_k: int
    format: Format
    explain: bool
    id: str | None = None


def parse(raw: RawRequest, classes: int) -> Request:
    """Parse a request to a model of ``classes`` labels.

    Raises:
        EmptyBody, InvalidRequest: nothing was sent, or JSON or a form of an unknown shape.
        MethodNotAllowed: nothing was sent, by a browser.
        UnsupportedEncoding, ImageTooLarge: the body is compressed in an unknown way, or too large decompressed.
        InvalidParameter: an option has an invalid value, or there are more than MAX_IMAGES images.
    """
    images: tuple[bytes | bytearray, ...]
    payload, options = _split(raw)
    if isinstance(payload, Mapping):
        protocol, images, body_id = _from_json(payload)
        options |= _parameters(payload)
    else:
        images = tuple(map(_file, payload))
        protocol, body_id = "plain" if len(payload) == 1 else "v1", None
    answer_format = _format(options.get("format", "json"), raw.explain, len(images))
    top_k = _top_k(options.get("top_k", min(DEFAULT_TOP_K, classes)), classes)
    return Request(images, protocol, top_k, answer_format, raw.explain, body_id)


def is_v2(raw: RawRequest) -> bool:
    """Whether a request, valid or not, is Open Inference V2's: its sender then reads V2's errors."""
    if binary_tensors.HEADER in raw.headers:
        return True
    body = next((raw.fields[name] for name in BODY_FIELDS if name in raw.fields), b"")
    if isinstance(body, Mapping):
        return "inputs" in body
    data = body[:_SEARCHED].encode(errors="replace") if isinstance(body, str) else body
    start = _beginning(encodings.head(data, raw.headers.get("content-encoding", ""), _SEARCHED), _SEARCHED)
    return start.startswith("{") and '"inputs"' in start


def _split(raw: RawRequest) -> tuple[tuple[bytes | bytearray, ...] | Mapping[str, Any], dict[str, object]]:
    """Return the payload, image files or parsed JSON, and the options beside it, headers included."""
    options: dict[str, object] = {
        name: raw.headers[header] for name in OPTIONS if (header := "x-" + name.replace("_", "-")) in raw.headers
    }
    options |= {name: raw.fields[name] for name in OPTIONS if name in raw.fields}
    return _payload(raw), options


def _payload(raw: RawRequest) -> tuple[bytes | bytearray, ...] | Mapping[str, Any]:
    fields = {name: value for name, value in raw.fields.items() if name not in OPTIONS}
    files = tuple(value for value in fields.values() if isinstance(value, bytes | bytearray) and len(value) > 0)
    form_of_several = len(files) > 1 and raw.headers.get("content-type", "").lower().startswith("multipart/")
    body = next((fields[name] for name in BODY_FIELDS if name in fields), None)
    if body is not None and not form_of_several:
        return _body(body, raw.headers)
    if not files:
        if not fields and raw.headers.get("content-type", "").lower().startswith("multipart/"):
            raise InvalidRequest("The form has no complete field: it is empty, malformed or cut short.")
        raise _nothing(raw.headers)
    if len(files) > MAX_IMAGES:
        raise InvalidParameter(f"At most {MAX_IMAGES} images per request; this form has {len(files)}.")
    return files


def _nothing(headers: Mapping[str, str]) -> EmptyBody | MethodNotAllowed:
    if "urlencoded" in headers.get("content-type", "").lower():
        return EmptyBody("The body was read as a form: curl -T FILE or -F file=@FILE sends it as an image.")
    # TorchServe hands over no method, and states a length of 0 for a GET too. Nobody but a browser asks for HTML.
    if "text/html" in headers.get("accept", "").lower():
        return MethodNotAllowed("Send an image with POST or PUT, for instance: curl -T photo.jpg URL")
    return EmptyBody("The body is empty: send an image file with POST or PUT, for instance: curl -T photo.jpg URL")


def _body(value: Field, headers: Mapping[str, str]) -> tuple[bytes | bytearray, ...] | Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    data = value.encode() if isinstance(value, str) else value
    if len(data) == 0:
        raise _nothing(headers)
    data = encodings.decompress(data, headers.get("content-encoding", ""), MAX_BODY_BYTES)
    length = headers.get(binary_tensors.HEADER)
    if length is not None:
        json_part, binary = binary_tensors.split(data, length)
        return binary_tensors.fill(_json(json_part), binary, MAX_IMAGES)
    # No accepted image format begins with a brace, so JSON is known without its Content-Type too.
    if headers.get("content-type", "").lower().startswith("application/json") or _is_object(data):
        return _json(data)
    return (data,)


def _json(data: bytes | bytearray) -> Mapping[str, Any]:
    # Each value but the first has one of these before it. None is in base64, so a body of images is far below.
    if sum(map(data.count, (b",", b"[", b"{"))) > MAX_JSON_VALUES:
        if not _is_object(data):
            raise InvalidRequest("The body is not JSON, which its Content-Type says.")
        raise InvalidParameter(f"The JSON has over {MAX_JSON_VALUES:,} values: send images as base64 strings.")
    try:
        content = json.loads(data, parse_int=_integer)
    except (ValueError, RecursionError):
        raise InvalidRequest("The body is not valid JSON.") from None
    if not isinstance(content, dict):
        raise InvalidRequest('The JSON body must be an object with "instances" or "inputs".')
    return content


def _is_object(data: bytes | bytearray) -> bool:
    return not data.startswith(_JPEG) and _beginning(data, _BEGINNING).startswith("{")


def _beginning(data: bytes | bytearray, size: int) -> str:
    """Return the first ``size`` bytes as text, in the UTF-8, 16 or 32 that JSON would be in, from its first sign on."""
    start = bytes(data[:size])
    return start.decode(json.detect_encoding(start), errors="replace").lstrip(_BYTE_ORDER_MARK + " \t\r\n")


def _file(data: bytes | bytearray) -> bytes | bytearray:
    """Return an image file as it is, or out of a data URL."""
    if not encodings.is_data_url(data):
        return data
    try:
        return encodings.from_base64(data.decode("ascii"))
    except ValueError:
        raise InvalidRequest("The data URL is not valid base64.") from None


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise InvalidParameter(f"A number in the JSON has more than {_MAX_DIGITS} digits.")
    return int(digits)


def _from_json(content: Mapping[str, Any]) -> tuple[Protocol, tuple[bytes, ...], str | None]:
    if "instances" in content:
        return "v1", _v1_images(content["instances"]), None
    if "inputs" in content:
        request_id = content.get("id")
        if request_id is not None and not isinstance(request_id, str):
            raise InvalidRequest('"id" must be a string.')
        return "v2", _v2_images(content["inputs"]), request_id
    raise InvalidRequest('The JSON body needs "instances" (KServe V1) or "inputs" (Open Inference V2).')


def _v1_images(instances: object) -> tuple[bytes, ...]:
    texts = [entry.get("b64") if isinstance(entry, Mapping) else None for entry in _filled_list(instances, "instances")]
    return _decoded(texts, "instances")


def _v2_images(inputs: object) -> tuple[bytes, ...]:
    tensors = _filled_list(inputs, "inputs")
    if len(tensors) != 1 or not isinstance(tensors[0], Mapping) or tensors[0].get("datatype") != "BYTES":
        raise InvalidRequest('"inputs" must hold one tensor of datatype BYTES.')
    data = _filled_list(tensors[0].get("data"), "data")
    shape = tensors[0].get("shape")
    if not _counts(shape, len(data)):
        raise InvalidRequest('"shape" must be [n] for n images in "data", or behind the JSON.')
    return _decoded(data, "data")


def _counts(shape: object, count: int) -> bool:
    """Whether a tensor's shape is one of ``count`` elements; dimensions are bounded before they are multiplied."""
    if not isinstance(shape, list) or not 1 <= len(shape) <= _MAX_DIMENSIONS:
        return False
    return all(type(length) is int and 1 <= length <= count for length in shape) and math.prod(shape) == count


def _filled_list(value: object, name: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise InvalidRequest(f'"{name}" must be a list with at least one entry.')
    if len(value) > MAX_IMAGES:
        raise InvalidParameter(f"At most {MAX_IMAGES} images per request; this one has {len(value)}.")
    return value


def _decoded(texts: list[Any], name: str) -> tuple[bytes, ...]:
    return tuple(_base64(text, f"{name}[{index}]") for index, text in enumerate(texts))


def _base64(text: object, where: str) -> bytes:
    if isinstance(text, bytes):  # no JSON: it came as binary data
        return text
    if not isinstance(text, str):
        shape = '{"b64": "..."} with' if where.startswith("instances") else ""
        raise InvalidRequest(f"{where} must be {shape} an image file as a base64 string.".replace("  ", " "))
    try:
        return encodings.from_base64(text)
    except ValueError:
        raise InvalidRequest(f"{where} is not valid base64.") from None


def _parameters(content: Mapping[str, Any]) -> dict[str, object]:
    parameters = content.get("parameters", {})
    if not isinstance(parameters, Mapping):
        raise InvalidRequest('"parameters" must be an object.')
    return {name: parameters[name] for name in OPTIONS if name in parameters}


def _top_k(value: object, classes: int) -> int:
    text = _text(value)
    if _WHOLE_NUMBER.fullmatch(text) and 1 <= int(text) <= classes:
        return int(text)
    raise InvalidParameter(f"top_k must be a whole number from 1 to {classes}.")


def _format(value: object, explain: bool, images: int) -> Format:
    text = _text(value)
    if text not in ("json", "png"):
        raise InvalidParameter("format must be json or png.")
    if text == "png" and not (explain and images == 1):
        raise InvalidParameter("format=png answers an explanation of one image.")
    return cast(Format, text)


def _text(value: object) -> str:
    """Return an option as text, empty for what is neither text nor a whole number."""
    if isinstance(value, bytes | bytearray):
        return value.decode("utf-8", errors="replace")
    return str(value) if isinstance(value, str) or type(value) is int else ""
