"""A form that the gateway sends as bytes is read as TorchServe would have, within bounds."""

import gzip
import time
from dataclasses import replace

import pytest
import requests

from visionserve import forms, request_parsing
from visionserve.errors import InvalidRequest
from visionserve.request_parsing import RawRequest

TYPE = "multipart/form-data; boundary=x"


def encoded(files: list[tuple[str, tuple[str, bytes]]], data: dict[str, str]) -> tuple[bytes, str]:
    """Return a form's body and its content type, as a client library writes them."""
    prepared = requests.Request("POST", "http://x/", files=files, data=data).prepare()
    assert isinstance(prepared.body, bytes)
    return prepared.body, prepared.headers["Content-Type"]


def raw(body: bytes, content_type: str = TYPE) -> RawRequest:
    return RawRequest("r", {"body": body}, {"content-type": "application/octet-stream", forms.HEADER: content_type})


def test_files_and_options_of_a_form_are_found() -> None:
    image = bytes(range(256)) * 9 + b"\r\n--almost"
    body, content_type = encoded([("file", ("a b.jpg", image))], {"top_k": "3"})
    request = request_parsing.parse(forms.unpack(raw(body, content_type)), classes=10)
    assert (request.images, request.top_k) == ((image,), 3)


def test_several_files_of_one_name_are_several_images_in_order() -> None:
    body, content_type = encoded([("file", ("1", b"one")), ("file", ("2", b"two")), ("file", ("3", b"three"))], {})
    request = request_parsing.parse(forms.unpack(raw(body, content_type)), classes=10)
    assert request.images == (b"one", b"two", b"three")


def test_a_request_that_is_no_form_stays_as_it_is() -> None:
    plain = RawRequest("r", {"body": b"image"}, {"content-type": "image/jpeg"})
    assert forms.unpack(plain) is plain


@pytest.mark.parametrize(
    ("body", "content_type", "reason"),
    [
        (b"", TYPE, "malformed or cut short"),
        (b"image", TYPE, "malformed or cut short"),
        (b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n', TYPE, "cut short"),
        (b"--x\r\nContent-Disposition: form-data\r\n\r\nhello\r\n--x--\r\n", TYPE, "needs `Content-Disposition"),
        (b"--x\r\nno end of the head\r\n--x--", TYPE, "needs `Content-Disposition"),
        (b"--x--\r\n", "multipart/form-data", "no boundary"),
    ],
)
def test_a_malformed_form_is_an_invalid_request(body: bytes, content_type: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        forms.unpack(raw(body, content_type))


def test_a_form_may_be_compressed() -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nimage\r\n--x--\r\n'
    request = raw(gzip.compress(body))
    unpacked = forms.unpack(replace(request, headers={**request.headers, "content-encoding": "gzip"}))
    assert unpacked.fields["a"] == b"image" and "content-encoding" not in unpacked.headers


@pytest.mark.parametrize(
    "separator", [b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n', b"--x\r\n", b"\r\n--x"]
)
def test_a_form_of_very_many_fields_is_refused_in_milliseconds(separator: bytes) -> None:
    body = separator * 150_000 + b"\r\n--x--"
    started = time.perf_counter()
    with pytest.raises(InvalidRequest):
        forms.unpack(raw(body))
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize("head", [b"Content-Disposition: form-data" + b"; a=b" * 700, b"a: " + b"x" * 3_000_000])
def test_a_field_with_a_long_head_takes_no_time(head: bytes) -> None:
    started = time.perf_counter()
    with pytest.raises(InvalidRequest):
        forms.unpack(raw(b"--x\r\n" + head + b"\r\n\r\n1\r\n--x--"))
    assert time.perf_counter() - started < 1
