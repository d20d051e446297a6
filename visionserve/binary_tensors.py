"""Binary tensors: Open Inference V2's binary extension, in which the tensor's bytes follow the JSON.

    Inference-Header-Content-Length: 134
    {"inputs": [{"name": "images", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 52193}}]}
    <length of the first element, 4 bytes, little-endian><the element><length of the second>...

It saves the third that base64 adds, and its time; other V2 clients send it by default.
https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/binary_data_extension.md
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from visionserve.errors import InvalidParameter, InvalidRequest

HEADER = "inference-header-content-length"
_SIZE = "binary_data_size"
_LENGTH_BYTES = 4
_WHOLE_NUMBER = re.compile(r"[0-9]{1,9}")


def split(body: bytes | bytearray, length: str) -> tuple[bytes, bytes]:
    """Return the JSON part and the binary part of a body; ``length`` is what the header says."""
    text = length.strip()
    if not _WHOLE_NUMBER.fullmatch(text) or int(text) > len(body):
        raise InvalidRequest(
            f"Inference-Header-Content-Length must be the length of the JSON part, at most {len(body)} bytes here."
        )
    return bytes(body[: int(text)]), bytes(body[int(text) :])


def fill(content: Mapping[str, Any], binary: bytes, max_elements: int) -> Mapping[str, Any]:
    """Return V2's JSON with the binary part as its one input's ``data``: at most ``max_elements`` bytes objects."""
    inputs = content.get("inputs")
    if not binary:
        return content
    single = isinstance(inputs, list) and len(inputs) == 1 and isinstance(inputs[0], Mapping)
    if not isinstance(inputs, list) or not single or inputs[0].get("datatype") != "BYTES":
        raise InvalidRequest('Binary data needs "inputs" with one tensor of datatype BYTES.')
    parameters = inputs[0].get("parameters")
    size = parameters.get(_SIZE) if isinstance(parameters, Mapping) else None
    if type(size) is not int or size != len(binary):
        raise InvalidRequest(f'The tensor\'s "{_SIZE}" must be the {len(binary)} bytes that follow the JSON.')
    if "data" in inputs[0]:
        raise InvalidRequest('A tensor has either "data" or binary data, not both.')
    return {**content, "inputs": [{**inputs[0], "data": _elements(binary, max_elements)}]}


def _elements(binary: bytes, max_elements: int) -> list[bytes]:
    elements: list[bytes] = []
    for element in _cut(binary):
        elements.append(element)
        if len(elements) > max_elements:
            raise InvalidParameter(f"At most {max_elements} images per request; this one has more.")
    return elements


def _cut(binary: bytes) -> Iterator[bytes]:
    position = 0
    while position < len(binary):
        start = position + _LENGTH_BYTES
        end = start + int.from_bytes(binary[position:start], "little")
        if start > len(binary) or end > len(binary):
            raise InvalidRequest(
                "The binary data ends within an element: each is its length as 4 bytes, little-endian, then its bytes."
            )
        yield binary[start:end]
        position = end
