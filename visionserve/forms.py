"""Multipart forms: a bounded number of fields, read from the bytes of the body (RFC 7578).

TorchServe's own parser takes 16 seconds for 150,000 small fields, while nothing else is received. The gateway therefore
declares a form as bytes and its content type in the header `x-form-type`, and it is read here.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from visionserve.encodings import decompress
from visionserve.errors import InvalidRequest
from visionserve.request_parsing import MAX_BODY_BYTES, MAX_IMAGES, OPTIONS, Field, RawRequest

HEADER = "x-form-type"
# Images, options, and as much again of what browsers add.
MAX_FIELDS = 2 * (MAX_IMAGES + len(OPTIONS))
_MAX_HEAD_BYTES = 4096
_BOUNDARY = re.compile(r'(?i);\s*boundary=(?:"([^"]{1,70})"|([^\s";,]{1,70}))')
_NAME = re.compile(
    rb'(?i)^content-disposition:\s*form-data\b[^\r\n]*?;\s*name=(?:"([^"\r\n]*)"|([^\s";]+))', re.MULTILINE
)


def unpack(raw: RawRequest) -> RawRequest:
    """Return the request with a form's fields in the place of its body; any other request as it is.

    Raises:
        InvalidRequest: the body is not a form, or one of more than MAX_FIELDS fields.
    """
    if HEADER not in raw.headers:
        return raw
    content_type = raw.headers[HEADER]
    headers = {name: value for name, value in raw.headers.items() if name != HEADER}
    body = next((raw.fields[name] for name in ("body", "data") if name in raw.fields), b"")
    others = {name: value for name, value in raw.fields.items() if name not in ("body", "data")}
    data = bytes(body) if isinstance(body, bytes | bytearray) else b""
    data = bytes(decompress(data, headers.pop("content-encoding", ""), MAX_BODY_BYTES))
    return replace(
        raw, fields={**others, **parse(data, content_type)}, headers=headers | {"content-type": content_type}
    )


def parse(body: bytes, content_type: str) -> Mapping[str, Field]:
    """Return the fields of a form by name; of several of one name, the later ones get a number."""
    boundary = _BOUNDARY.search(content_type)
    if boundary is None:
        raise InvalidRequest("The form has no boundary in its Content-Type: let the client library set that header.")
    delimiter = b"\r\n--" + (boundary[1] or boundary[2]).encode("latin-1", "replace")
    _, *parts = (b"\r\n" + body).split(delimiter, MAX_FIELDS + 2)
    if len(parts) > MAX_FIELDS + 1:
        raise InvalidRequest(f"The form has more than {MAX_FIELDS} fields: send at most {MAX_IMAGES} images.")
    if not parts or not parts[-1].startswith(b"--"):
        raise InvalidRequest("The form is malformed or cut short: its last boundary is missing.")
    fields: dict[str, Field] = {}
    for part in parts[:-1]:
        name, content = _field(part)
        fields[name if name not in fields else f"{name}#{len(fields)}"] = content
    return fields


def _field(part: bytes) -> tuple[str, bytes]:
    head, end, content = part.partition(b"\r\n\r\n")
    name = _NAME.search(head[:_MAX_HEAD_BYTES].removeprefix(b"\r\n")) if end else None
    if name is None:
        raise InvalidRequest('The form is malformed: each field needs `Content-Disposition: form-data; name="..."`.')
    return (name[1] if name[1] is not None else name[2]).decode("utf-8", "replace"), content
