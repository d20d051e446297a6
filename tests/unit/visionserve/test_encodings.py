"""How people write bytes: as text, in other Unicode encodings, compressed in several pieces."""

import base64
import gzip
import time
import zlib
from collections.abc import Callable
from urllib.parse import quote

import pytest

from tests.unit.visionserve.test_request_parsing import IMAGE, TEXT, parsed, v1, v2
from visionserve import encodings
from visionserve.errors import ImageTooLarge, InvalidRequest, ServiceError
from visionserve.request_parsing import RawRequest, is_v2

ODD = bytes(range(256)) * 2 + b"\xfb\xef\xff"  # its base64 has + and /, and no padding in any of the lengths below
SPELLINGS: dict[str, Callable[[bytes], str]] = {
    "lines": lambda data: base64.encodebytes(data).decode(),
    "crlf": lambda data: base64.encodebytes(data).decode().replace("\n", "\r\n"),
    "spaces": lambda data: " " + base64.encodebytes(data).decode().replace("\n", " "),
    "data-url": lambda data: "data:image/jpeg;base64," + base64.b64encode(data).decode(),
    "data-url-odd": lambda data: " Data:image/png;name=a.png;BASE64,\n" + base64.encodebytes(data).decode(),
    "data-url-charset": lambda data: "data:image/png;charset=utf-8;base64," + base64.b64encode(data).decode(),
    "data-url-no-type": lambda data: "data:;base64," + base64.b64encode(data).decode(),
    "data-url-spaces": lambda data: "data: image/png ; base64 , " + base64.b64encode(data).decode(),
    "data-url-comma-in-name": lambda data: 'data:image/png;name="a,b";base64,' + base64.b64encode(data).decode(),
    "data-url-escaped": lambda data: "data:image/png;base64," + quote(base64.b64encode(data).decode(), safe=""),
    "data-url-no-base64": lambda data: "data:image/png," + quote(data),
    "escaped": lambda data: quote(base64.b64encode(data).decode(), safe=""),
    "url-safe": lambda data: base64.urlsafe_b64encode(data).decode(),
    "url-safe-unpadded": lambda data: base64.urlsafe_b64encode(data).decode().rstrip("="),
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_base64_is_read_as_people_write_it(spelling: Callable[[bytes], str]) -> None:
    for data in (ODD, ODD[:-1], ODD[:-2]):
        assert parsed({"body": v1(spelling(data))}).images == (data,)
        assert parsed({"body": v2([spelling(data)])}).images == (data,)


def test_a_data_url_may_be_the_body_or_a_field() -> None:
    for field in ("body", "canvas"):
        assert parsed({field: f"data:image/jpeg;base64,{TEXT}".encode()}).images == (IMAGE,)
    with pytest.raises(InvalidRequest, match="data URL is not valid"):
        parsed({"body": "data:image/jpeg;base64,ü".encode()})


def test_bytes_without_a_name_in_json_are_told_the_shape() -> None:
    with pytest.raises(InvalidRequest, match=r'instances\[0\] must be \{"b64": "..."\}'):
        parsed({"body": b'{"instances": ["' + TEXT.encode() + b'"]}'})


def test_percent_escapes_without_end_take_no_time() -> None:
    started = time.process_time()
    assert encodings.percent_decoded(b"%41" * 5_000_000) == b"A" * 5_000_000
    assert time.process_time() - started < 1


def test_json_may_begin_with_a_byte_order_mark() -> None:
    for content_type in ("", "application/json"):
        assert parsed({"body": b"\xef\xbb\xbf \n" + v1(TEXT)}, content_type=content_type).images == (IMAGE,)
        assert parsed({"body": "\ufeff" + v1(TEXT).decode()}, content_type=content_type).images == (IMAGE,)
    assert is_v2(RawRequest("id", {"body": b"\xef\xbb\xbf" + v2([TEXT])}, {}))


@pytest.mark.parametrize("mark", [True, False], ids=["mark", "no-mark"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_json_may_be_in_any_unicode_encoding_whatever_its_content_type(encoding: str, mark: bool) -> None:
    for content_type in ("", "application/json", "application/json; charset=utf-16", "image/jpeg"):
        body = (" " + v1(TEXT).decode()).encode(encoding)
        if mark:
            body = "\ufeff".encode(encoding) + body
        assert parsed({"body": body}, content_type=content_type).images == (IMAGE,)
    assert is_v2(RawRequest("id", {"body": v2(["@"]).decode().encode(encoding)}, {}))


def test_a_gzip_body_may_have_several_members_and_padding() -> None:
    parts = [gzip.compress(IMAGE[:3]), gzip.compress(b""), gzip.compress(IMAGE[3:])]
    for body in (b"".join(parts), b"".join(parts) + bytes(512), gzip.compress(IMAGE) + bytes(512)):
        assert parsed({"body": bytearray(body)}, content_encoding="gzip").images == (IMAGE,)


@pytest.mark.parametrize(
    "body",
    [
        gzip.compress(IMAGE) + gzip.compress(IMAGE)[:-1],
        gzip.compress(IMAGE) + gzip.compress(IMAGE)[:-8] + bytes(8),
        gzip.compress(IMAGE) * 2 + b"junk",
        gzip.compress(IMAGE) * 2 + gzip.compress(IMAGE)[:9],
        zlib.compress(IMAGE) + b"junk",
    ],
    ids=["truncated", "wrong-sum", "junk", "header", "deflate-junk"],
)
def test_a_gzip_body_whose_last_member_is_broken_is_an_invalid_request(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parsed({"body": body}, content_encoding="gzip" if body[0] == 0x1F else "deflate")


def test_members_without_end_and_bombs_in_members_are_too_large() -> None:
    started = time.process_time()
    for body in (gzip.compress(b"") * 500_000, gzip.compress(IMAGE) + gzip.compress(bytes(40 << 20), 1)):
        with pytest.raises(ImageTooLarge):
            parsed({"body": body}, content_encoding="gzip")
    assert time.process_time() - started < 3


def test_no_compressed_bytes_whatever_raise_anything_but_a_service_error() -> None:
    seed = gzip.compress(IMAGE) * 2
    for index in range(len(seed)):
        for replacement in (b"", b"\x00", b"\xff"):
            try:
                parsed({"body": seed[:index] + replacement + seed[index + 1 :]}, content_encoding="gzip")
            except ServiceError:
                continue
