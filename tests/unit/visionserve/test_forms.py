"""A form that the gateway sends as bytes is read as TorchServe would have, within bounds."""

import contextlib
import gzip
import time
from dataclasses import replace

import pytest
import requests

from visionserve import forms, request_parsing
from visionserve.errors import InvalidRequest, ServiceError
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


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Disposition: form-data" + b"; a=b" * 700,
        b'Content-Disposition: form-data; a="' + b';a="\\' * 900,
        b"a: " + b"x" * 3_000_000,
        b"a:" + b"\r\n " * 1_000_000,
    ],
)
def test_a_field_with_a_long_head_takes_no_time(head: bytes) -> None:
    started = time.perf_counter()
    with pytest.raises(InvalidRequest):
        forms.unpack(raw(b"--x\r\n" + head + b"\r\n\r\n1\r\n--x--"))
    assert time.perf_counter() - started < 1


def field(disposition: str, content: bytes = b"image", more: bytes = b"", newline: bytes = b"\r\n") -> bytes:
    return b"Content-Disposition: " + disposition.encode() + newline + more + newline + content


def form(*fields: bytes, line: bytes = b"x", newline: bytes = b"\r\n") -> bytes:
    return b"".join(b"--" + line + newline + entry + newline for entry in fields) + b"--" + line + b"--"


FILE = 'form-data; name="file"; filename="a.jpg"'
LONG = "a" * 70
HEADS = {
    "no-file-name": 'form-data; name="file"',
    "no-quotes": "form-data; name=file; filename=a.jpg",
    "single-quotes": "form-data; name='file'; filename='a.jpg'",
    "capitals": 'FORM-DATA; NAME="file"; FILENAME="a.jpg"',
    "rfc-5987": "form-data; name=\"file\"; filename*=UTF-8''%e2%82%ac.jpg",
    "rfc-5987-charset": "form-data; name=\"file\"; filename*=KLINGON''a.jpg",
    "rfc-5987-broken": 'form-data; name="file"; filename*=broken',
    "rfc-2231": 'form-data; name="file"; filename*0="a"; filename*1=".jpg"',
    "rfc-2231-name": "form-data; name*=UTF-8''file; filename=a.jpg",
    "no-name": 'form-data; filename="a.jpg"',
    "empty-names": 'form-data; name=""; filename=""',
    "quote": r'form-data; name="file"; filename="a\"b;c.jpg"',
    "path": r'form-data; name="file"; filename="C:\dir\"',
    "unicode": 'form-data; name="ü"; filename="€.jpg"',
    "option-in-file-name": 'form-data; filename="x; name=top_k"; name="file"',
    "folded": 'form-data;\r\n name="file";\r\n\tfilename="a.jpg"',
    "attachment": 'attachment; name="file"; filename="a.jpg"',
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_a_file_is_found_however_its_name_is_written(head: str) -> None:
    request = request_parsing.parse(forms.unpack(raw(form(field(head)))), classes=10)
    assert (request.images, request.top_k) == ((b"image",), 5)


BOUNDARIES = {
    "quoted": ("x", 'multipart/form-data; boundary="x"'),
    "capitals": ("x", "MULTIPART/FORM-DATA; BOUNDARY=x"),
    "70-letters": (LONG, f"multipart/form-data; boundary={LONG}"),
    "longer": (LONG + "b", f'multipart/form-data; boundary="{LONG}b"'),
    "space-and-signs": ("'()+_,-./:=? a", 'multipart/form-data; boundary="\'()+_,-./:=? a"'),
    "signs-without-quotes": ("a:b/c,d=", "multipart/form-data; boundary=a:b/c,d="),
    "other-parameters": ("x", "multipart/form-data; charset=klingon; boundary=x;"),
    "spaces": ("x", "multipart/form-data ; boundary = x ; a=b"),
}


@pytest.mark.parametrize(("line", "content_type"), BOUNDARIES.values(), ids=BOUNDARIES)
def test_a_boundary_may_be_written_in_every_legal_way(line: str, content_type: str) -> None:
    assert forms.parse(form(field(FILE), line=line.encode()), content_type) == {"file": b"image"}


@pytest.mark.parametrize(
    "body",
    [
        b"preamble\r\n" + form(field(FILE)) + b"\r\nepilogue",
        b"\r\n" + form(field(FILE)),
        form(field(FILE)).replace(b"--x\r\n", b"--x \t\r\n"),
        form(field(FILE, newline=b"\n"), newline=b"\n") + b"\n",
        form(b"Content-Type: image/jpeg; charset=klingon\r\n" + field(FILE)),
        form(field(FILE, b"aW1h\r\nZ2U=\r\n", b"Content-Transfer-Encoding: base64\r\n")),
        form(field(FILE, b"im=61ge", b"Content-Transfer-Encoding: quoted-printable\r\n")),
        form(field(FILE, more=b"Content-Transfer-Encoding: Binary\r\nContent-Length: 3\r\n")),
    ],
    ids=["preamble", "empty-line", "padding", "line-feeds", "charset", "base64", "quoted-printable", "binary"],
)
def test_a_form_is_read_whatever_mail_or_a_script_has_put_around_its_files(body: bytes) -> None:
    assert forms.parse(body, TYPE) == {"file": b"image"}


@pytest.mark.parametrize("encoding", [b"base64", b"uuencode"])
def test_a_field_whose_transfer_encoding_cannot_be_undone_is_refused(encoding: bytes) -> None:
    with pytest.raises(InvalidRequest, match="A field of the form"):
        forms.parse(form(field(FILE, b"@@", b"Content-Transfer-Encoding: " + encoding + b"\r\n")), TYPE)


def test_the_files_of_a_form_within_the_form_are_several_images() -> None:
    inner = form(b'Content-Disposition: file; filename="a.jpg"\r\n\r\none', field("file", b"two"), line=b"In")
    outer = form(field('form-data; name="files"', inner, b"Content-Type: multipart/mixed; boundary=In\r\n"))
    assert list(forms.parse(outer, TYPE).values()) == [b"one", b"two"]


def test_texts_beside_files_are_left_out_and_options_kept() -> None:
    texts = [field('form-data; name="_charset_"', b"utf-8"), field('form-data; name="MAX_FILE_SIZE"', b"1000000")]
    option = field('form-data; name="top_k"', b"2")
    fields = forms.parse(form(*texts, field(FILE), field(FILE, b"other"), option), TYPE)
    assert fields == {"file": b"image", "file#3": b"other", "top_k": b"2"}
    assert forms.parse(form(*texts), TYPE) == {"_charset_": b"utf-8", "MAX_FILE_SIZE": b"1000000"}


@pytest.mark.parametrize("kind", ["multipart/mixed", "multipart/related", "Multipart/Form-Data"])
def test_a_form_that_the_server_did_not_take_for_one_is_read(kind: str) -> None:
    body = form(field(FILE))
    request = RawRequest("r", {"body": bytearray(body)}, {"content-type": f"{kind}; boundary=x"})
    assert forms.unpack(request).fields == {"file": b"image"}
    parsed_by_the_server = replace(request, fields={"data": bytearray(b"image"), "top_k": b"2"})
    assert forms.unpack(parsed_by_the_server).fields == parsed_by_the_server.fields


@pytest.mark.parametrize("declared", ["multipart/form-data", "application/x-www-form-urlencoded"])
def test_a_file_that_is_declared_as_a_form_is_a_file(declared: str) -> None:
    for start in (b"\xff\xd8\xff", b"BM6=", b"{"):
        assert forms.unpack(raw(start + b"&image=1", declared)).fields == {"body": start + b"&image=1"}


def test_the_fields_of_a_url_encoded_form_are_found() -> None:
    body = b"photo%5B%5D=data%3Aimage%2Fpng%3Bbase64%2CaW1hZ2U%3D&top_k=2"
    request = request_parsing.parse(forms.unpack(raw(body, "application/x-www-form-urlencoded")), classes=10)
    assert (request.images, request.top_k) == ((b"image",), 2)
    with pytest.raises(InvalidRequest, match="more than 36"):
        forms.unpack(raw(b"a=1&" * 100_000, "application/x-www-form-urlencoded"))


def test_no_bytes_whatever_raise_anything_but_a_service_error() -> None:
    seed = form(
        field(FILE, b"aW1hZ2U=", b"Content-Transfer-Encoding: base64\r\n"), field("form-data; name=top_k", b"2")
    )
    for index in range(len(seed)):
        for replacement in (b"", b"\x00", b"\xff", b'"', b";", b"\n"):
            with contextlib.suppress(ServiceError):
                request_parsing.parse(forms.unpack(raw(seed[:index] + replacement + seed[index + 1 :])), classes=10)
