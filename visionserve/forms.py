"""Forms: a bounded number of fields, read from the bytes of the body (RFC 7578, RFC 2046).

TorchServe's own parser takes 16 seconds for 150,000 small fields, while nothing else is received. The gateway therefore
declares a form as bytes and its content type in the header `x-form-type`, and it is read here. So is what TorchServe
does not take for a form: multipart of another kind, or spelt in capitals.
"""

import binascii
import re
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, replace

from visionserve.encodings import decompress, from_base64, head, percent_decoded
from visionserve.errors import InvalidRequest
from visionserve.request_parsing import BODY_FIELDS, MAX_BODY_BYTES, MAX_IMAGES, OPTIONS, Field, RawRequest

HEADER = "x-form-type"
# Images, options, and as much again of what browsers add.
MAX_FIELDS = 2 * (MAX_IMAGES + len(OPTIONS))
_MAX_HEAD_BYTES = 4096
_BEGINNING = 128  # bytes that tell a form from a file
_PARAMETER = re.compile(r';\s*([^\s=;"]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)')
_FOLD, _ESCAPE = re.compile(r"\r?\n[ \t]+"), re.compile(r"\\(.)")
# What a field without a file name holds: text, or parameters of the page's own.
_TEXTS = ("text/", "application/json")
# The first field of a URL-encoded form. A bitmap, which curl declares as one, could begin so by chance.
_URL_ENCODED = re.compile(rb"(?!BM)[\w.%\[\]-]{1,64}=")


@dataclass(frozen=True)
class _Part:
    """A field; ``is_file`` by its file name or content type."""

    name: str
    content: bytes
    is_file: bool


def unpack(raw: RawRequest) -> RawRequest:
    """Return the request with a form's fields in the place of its body; any other request as it is.

    Raises:
        InvalidRequest: the body is not a form, or one of more than MAX_FIELDS fields.
    """
    declared = raw.headers.get(HEADER) or raw.headers.get("content-type", "")
    body = next((raw.fields[name] for name in BODY_FIELDS if name in raw.fields), b"")
    if not isinstance(body, bytes | bytearray) or not (HEADER in raw.headers or _is_multipart(declared)):
        return raw
    headers = {name: value for name, value in raw.headers.items() if name != HEADER}
    start = head(body, headers.get("content-encoding", ""), _BEGINNING)
    read: Callable[[bytes, str], Mapping[str, Field]] | None
    if _is_multipart(declared):
        read = parse if start.startswith(b"--") or (HEADER in raw.headers and _boundary(declared)) else None
    else:
        read = _url_encoded if _URL_ENCODED.match(start) else None
    if read is None:  # a file with the content type of a form
        return replace(raw, headers=headers)
    data = bytes(decompress(body, headers.pop("content-encoding", ""), MAX_BODY_BYTES))
    others = {name: value for name, value in raw.fields.items() if name not in BODY_FIELDS}
    return replace(raw, fields={**others, **read(data, declared)}, headers=headers | {"content-type": declared})


def parse(body: bytes, content_type: str) -> Mapping[str, Field]:
    """Return the fields of a multipart form by name; of several of one name, the later ones get a number."""
    return _by_name(_parts(body, content_type))


def without_texts(fields: Mapping[str, Field], files: Container[str]) -> Mapping[str, Field]:
    """Return a form's files and options, where it has files: the texts beside them are nothing to answer."""
    if not any(name in files for name in fields if name not in OPTIONS):
        return fields
    return {name: value for name, value in fields.items() if name in files or name in OPTIONS}


def _by_name(parts: Iterator[_Part]) -> Mapping[str, Field]:
    fields: dict[str, Field] = {}
    files: set[str] = set()
    for part in parts:
        name = part.name if part.name not in fields else f"{part.name}#{len(fields)}"
        fields[name] = part.content
        if part.is_file:
            files.add(name)
    return without_texts(fields, files)


def _url_encoded(body: bytes, _content_type: str) -> Mapping[str, Field]:
    pairs = [pair.partition(b"=") for pair in body.split(b"&", MAX_FIELDS)]
    if len(pairs) > MAX_FIELDS:
        raise InvalidRequest(f"The form has more than {MAX_FIELDS} fields: send at most {MAX_IMAGES} images.")
    decoded = ((name, percent_decoded(value.replace(b"+", b" "))) for name, _, value in pairs)
    return _by_name(_Part(name.decode("utf-8", "replace"), value, is_file=False) for name, value in decoded)


def _is_multipart(content_type: str) -> bool:
    return content_type.lower().startswith("multipart/")


def _boundary(content_type: str) -> str | None:
    return _parameters(content_type).get("boundary") or None


def _parts(body: bytes, content_type: str, *, nested: bool = False) -> Iterator[_Part]:
    """Yield the fields in order; one that is a form in itself, as RFC 2388 had several files, as its files."""
    boundary = _boundary(content_type)
    if boundary is None:
        raise InvalidRequest("The form has no boundary in its Content-Type: let the client library set that header.")
    line = b"--" + boundary.encode("latin-1", "replace")
    newline = b"\r\n" if _ends_with_crlf(body, line) else b"\n"
    _, *parts = (newline + body).split(newline + line, MAX_FIELDS + 2)
    if len(parts) > MAX_FIELDS + 1:
        raise InvalidRequest(f"The form has more than {MAX_FIELDS} fields: send at most {MAX_IMAGES} images.")
    if not parts or not parts[-1].startswith(b"--"):
        raise InvalidRequest("The form is malformed or cut short: its last boundary is missing.")
    for part in parts[:-1]:
        start, end, content = part.partition(newline * 2)
        headers = _headers(start[:_MAX_HEAD_BYTES]) if end else {}
        if _is_multipart(headers.get("content-type", "")) and not nested:
            yield from _parts(content, headers["content-type"], nested=True)
        else:
            yield _part(headers, content, nested=nested)


def _ends_with_crlf(body: bytes, line: bytes) -> bool:
    start = body.find(line) + len(line)
    end = body.find(b"\n", start)
    return end < 0 or body[max(start, end - 1) : end] == b"\r"


def _headers(start: bytes) -> dict[str, str]:
    """Return a field's headers by lower-case name; a line that begins with white space continues the one before."""
    lines = _FOLD.sub(" ", start.decode("utf-8", "replace")).splitlines()
    pairs = (line.partition(":") for line in lines)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _part(headers: Mapping[str, str], content: bytes, *, nested: bool) -> _Part:
    # RFC 2231 and 5987 add a star, a number or both to a parameter's name. The values are of no interest.
    parameters = _parameters(headers.get("content-disposition", ""))
    disposition = {name.partition("*")[0]: value for name, value in parameters.items()}
    content_type = headers.get("content-type", "").lower()
    is_file = nested or "filename" in disposition or bool(content_type and not content_type.startswith(_TEXTS))
    if "name" not in disposition and not is_file:
        raise InvalidRequest('The form is malformed: each field needs `Content-Disposition: form-data; name="..."`.')
    encoding = headers.get("content-transfer-encoding", "").lower()
    return _Part(disposition.get("name", ""), _transferred(content, encoding), is_file)


def _transferred(content: bytes, encoding: str) -> bytes:
    """Undo a Content-Transfer-Encoding, which mail has and RFC 7578 does not forbid."""
    if encoding in ("", "7bit", "8bit", "binary"):
        return content
    if encoding == "quoted-printable":
        return binascii.a2b_qp(content)
    if encoding == "base64":
        try:
            return from_base64(content.decode("ascii"))
        except ValueError:
            raise InvalidRequest("A field of the form is not valid base64, which its header says.") from None
    raise InvalidRequest("A field of the form has an unknown Content-Transfer-Encoding: send the file's bytes.")


def _parameters(value: str) -> dict[str, str]:
    """Return the parameters behind the first semicolon of a header, by lower-case name, without quotes."""
    return {name.lower(): _unquoted(text.strip()) for name, text in _PARAMETER.findall(value)}


def _unquoted(text: str) -> str:
    return _ESCAPE.sub(r"\1", text[1:-1]) if len(text) > 1 and text[0] == text[-1] == '"' else text
