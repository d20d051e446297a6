import base64
import contextlib
import gzip
import json
import time
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from visionserve.errors import (
    EmptyBody,
    ImageTooLarge,
    InvalidParameter,
    InvalidRequest,
    MethodNotAllowed,
    ServiceError,
    UnsupportedEncoding,
)
from visionserve.request_parsing import MAX_BODY_BYTES, MAX_IMAGES, Field, RawRequest, Request, is_v2, parse

IMAGE = b"\xff\xd8 image"
TEXT = base64.b64encode(IMAGE).decode()
CLASSES = 10


def parsed(fields: dict[str, Field], *, explain: bool = False, **headers: str) -> Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return parse(RawRequest("id", fields, named, explain), CLASSES)


def v1(*texts: Any, **more: Any) -> bytes:
    return json.dumps({"instances": [{"b64": text} for text in texts], **more}).encode()


def v2(data: list[Any], shape: Any = None, datatype: str = "BYTES", **more: Any) -> bytes:
    tensor = {"name": "images", "datatype": datatype, "shape": shape or [len(data)], "data": data}
    return json.dumps({"inputs": [tensor], **more}).encode()


@pytest.mark.parametrize("field", ["body", "data"])
def test_the_raw_body_is_one_image_with_five_predictions_as_json(field: str) -> None:
    assert parsed({field: bytearray(IMAGE)}) == Request((IMAGE,), "plain", 5, "json", explain=False)


def test_any_field_of_a_form_may_hold_the_image() -> None:
    assert parsed({"photo": IMAGE, "empty": b""}).images == (IMAGE,)


@pytest.mark.parametrize("names", [("one", "two"), ("file", "data"), ("body", "data")])
def test_the_files_of_a_form_are_answered_in_order_as_in_v1(names: tuple[str, str]) -> None:
    fields = dict(zip(names, (IMAGE, b"other"), strict=True))
    request = parsed({**fields, "top_k": b"2"}, content_type="Multipart/form-data; boundary=x")
    assert (request.images, request.protocol, request.top_k) == ((IMAGE, b"other"), "v1", 2)


def test_a_form_of_more_files_than_the_limit_is_refused() -> None:
    with pytest.raises(InvalidParameter, match=r"At most 16 .* 17"):
        parsed({f"file{number}": IMAGE for number in range(MAX_IMAGES + 1)})


@pytest.mark.parametrize(
    "fields",
    [{}, {"body": b""}, {"body": ""}, {"file": b""}, {"top_k": b"3"}],
    ids=["none", "body", "text", "file", "option"],
)
def test_nothing_sent_is_an_empty_body(fields: dict[str, Field]) -> None:
    with pytest.raises(EmptyBody, match="curl -T"):
        parsed(fields)


def test_a_browser_that_sends_nothing_is_told_the_method() -> None:
    with pytest.raises(MethodNotAllowed, match=r"POST or PUT.* curl -T"):
        parsed({}, accept="text/html,application/xhtml+xml", content_length="0")


def test_a_body_that_curl_sent_as_a_form_gets_a_hint() -> None:
    with pytest.raises(EmptyBody, match="-T FILE"):
        parsed({"\xff\xd8gibberish": b""}, content_type="application/x-www-form-urlencoded")


def test_json_is_known_by_its_first_character_too() -> None:
    assert parsed({"body": b"\n " + v1(TEXT)}).protocol == "v1"


def test_json_that_the_server_has_parsed_is_taken_as_it_is() -> None:
    assert parsed({"body": json.loads(v1(TEXT, TEXT))}).images == (IMAGE, IMAGE)


def test_v2_carries_an_id_and_options() -> None:
    request = parsed({"body": v2([TEXT], id="call-1", parameters={"top_k": 2})})
    assert request == Request((IMAGE,), "v2", 2, "json", explain=False, id="call-1")


@pytest.mark.parametrize("shape", [[2], [2, 1], [1, 2]])
def test_v2_takes_any_shape_that_counts_the_data(shape: list[int]) -> None:
    assert len(parsed({"body": v2([TEXT, TEXT], shape)}).images) == 2


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[" * 100_000,
        b"[1]",
        b'"text"',
        b"\xff\xfe",
        b"{}",
        b'{"instances": 1}',
        b'{"instances": []}',
        b'{"instances": [1]}',
        b'{"instances": [{}]}',
        v1(5),
        v1("@@"),
        v1("abcde"),
        v1("data:image/jpeg;base64,@@"),
        v1("data:;base64" + " " * 300 + ",abcd"),
        v1("data:image/jpeg;base64"),
        v1("ü"),
        v1(TEXT, parameters=[]),
        v2([TEXT], [3]),
        v2([TEXT], ["1"]),
        v2([TEXT], [True]),
        v2([TEXT], [1] * 9),
        v2([TEXT, TEXT], [-2, -1]),
        v2([TEXT], "x"),
        v2([TEXT], datatype="FP32"),
        v2([None]),
        v2([TEXT], id=7),
        b'{"inputs": [1]}',
        b'{"inputs": [{"datatype": "BYTES", "shape": [1]}]}',
        json.dumps({"inputs": [{}, {}]}).encode(),
    ],
)
def test_json_of_no_known_shape_is_an_invalid_request(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parsed({"body": body}, content_type="application/json; charset=utf-8")


def binary(*elements: bytes, cut: int = 0, junk: bytes = b"", header: str | None = None, **tensor: Any) -> Request:
    """Parse a V2 request with binary data, broken as the arguments say."""
    tail = b"".join(len(element).to_bytes(4, "little") + element for element in elements) + junk
    tail = tail[: len(tail) - cut]
    entry: dict[str, Any] = {"name": "images", "datatype": "BYTES", "shape": [len(elements)]}
    entry |= {"parameters": {"binary_data_size": len(tail)}, **tensor}
    start = json.dumps({"id": "a", "inputs": [entry], "parameters": {"top_k": 2, "binary_data_output": True}}).encode()
    headers = {"inference-header-content-length": str(len(start)) if header is None else header}
    return parse(RawRequest("id", {"body": bytearray(start + tail)}, headers), CLASSES)


def test_v2_takes_binary_data_behind_the_json() -> None:
    expected = Request((IMAGE, b"{other"), "v2", 2, "json", explain=False, id="a")
    assert binary(IMAGE, b"{other") == expected


def test_v2_without_binary_data_may_still_say_how_long_its_json_is() -> None:
    body = v2([TEXT])
    headers = {"inference-header-content-length": str(len(body))}
    assert parse(RawRequest("id", {"body": body}, headers), CLASSES).images == (IMAGE,)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"header": "x"}, "length of the JSON part"),
        ({"header": ""}, "length of the JSON part"),
        ({"header": "-1"}, "length of the JSON part"),
        ({"header": "999999"}, "length of the JSON part, at most"),
        ({"header": "9" * 5000}, "length of the JSON part"),
        ({"header": "10"}, "not valid JSON"),
        ({"cut": 1}, "ends within an element"),
        ({"junk": b"\x01\x00"}, "ends within an element"),
        ({"junk": b"\xff\xff\xff\xff"}, "ends within an element"),
        ({"parameters": {"binary_data_size": 3}}, "must be the 16 bytes"),
        ({"parameters": {"binary_data_size": "16"}}, "must be the 16 bytes"),
        ({"parameters": {"binary_data_size": True}}, "must be the 16 bytes"),
        ({"parameters": []}, "must be the 16 bytes"),
        ({"parameters": None}, "must be the 16 bytes"),
        ({"data": [TEXT]}, "not both"),
        ({"datatype": "UINT8"}, "datatype BYTES"),
        ({"shape": [3]}, "must be \\[n\\] for n images"),
        ({"shape": [-1, -2]}, "must be \\[n\\] for n images"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_binary_data_that_does_not_fit_is_an_invalid_request(broken: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        binary(IMAGE, b"", **broken)


@pytest.mark.parametrize("inputs", [None, [], [1], [{}, {}], "x"])
def test_binary_data_needs_one_tensor(inputs: Any) -> None:
    start = json.dumps({"inputs": inputs}).encode()
    headers = {"inference-header-content-length": str(len(start))}
    with pytest.raises(InvalidRequest, match="one tensor"):
        parse(RawRequest("id", {"body": start + b"more"}, headers), CLASSES)


@pytest.mark.parametrize(
    ("fields", "headers", "expected"),
    [
        ({"body": b' {"id": "a", "inputs": ['}, {}, True),
        ({"data": '{"inputs": 1}'}, {}, True),
        ({"body": {"inputs": []}}, {}, True),
        ({"body": b"junk"}, {"inference-header-content-length": "x"}, True),
        ({"body": b'{"instances": []}'}, {}, False),
        ({"body": b'\xff\xd8 {"inputs"'}, {}, False),
        ({"file": b'{"inputs": []}'}, {}, False),
        ({}, {}, False),
    ],
)
def test_open_inference_is_known_by_its_looks(
    fields: dict[str, Field], headers: dict[str, str], expected: bool
) -> None:
    assert is_v2(RawRequest("id", fields, headers)) is expected


def test_more_binary_images_than_the_limit_are_refused() -> None:
    assert len(binary(*[IMAGE] * MAX_IMAGES).images) == MAX_IMAGES
    with pytest.raises(InvalidParameter, match="At most 16"):
        binary(*[IMAGE] * (MAX_IMAGES + 1))


def test_no_binary_data_whatever_raises_anything_but_a_service_error() -> None:
    tail = b"".join(len(element).to_bytes(4, "little") + element for element in (IMAGE, b""))
    entry: dict[str, Any] = {"datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": len(tail)}}
    start = json.dumps({"inputs": [entry]}).encode()
    whole, headers = start + tail, {"inference-header-content-length": str(len(start))}
    for index in range(len(whole)):
        for replacement in (b"", b"\x00", b"\xff", b"9"):
            with contextlib.suppress(ServiceError):
                parse(RawRequest("id", {"body": whole[:index] + replacement + whole[index + 1 :]}, headers), CLASSES)


def test_more_images_than_the_limit_are_refused() -> None:
    assert len(parsed({"body": v1(*[TEXT] * MAX_IMAGES)}).images) == MAX_IMAGES
    with pytest.raises(InvalidParameter, match="17"):
        parsed({"body": v1(*[TEXT] * (MAX_IMAGES + 1))})


@pytest.mark.parametrize(
    ("fields", "header"),
    [
        ({"body": IMAGE, "top_k": b"2"}, None),
        ({"body": IMAGE}, "2"),
        ({"body": v1(TEXT, parameters={"top_k": 2})}, None),
    ],
    ids=["field", "header", "json"],
)
def test_top_k_is_taken_from_a_field_a_header_or_the_json(fields: dict[str, Field], header: str | None) -> None:
    request = parsed(fields) if header is None else parsed(fields, x_top_k=header)
    assert request.top_k == 2


def test_the_body_wins_over_the_field_and_the_field_over_the_header() -> None:
    assert parsed({"body": IMAGE, "top_k": b"2"}, x_top_k="3").top_k == 2
    assert parsed({"body": v1(TEXT, parameters={"top_k": 1}), "top_k": b"2"}).top_k == 1


def test_few_classes_lower_the_default_of_top_k() -> None:
    assert parse(RawRequest("id", {"body": IMAGE}, {}), 3).top_k == 3


@pytest.mark.parametrize("value", ["abc", "", "0", "11", "-1", "+1", " 1", "1.0", "1e0", "٣", "1_0", "9" * 5000])
def test_an_unusable_top_k_is_an_invalid_parameter(value: str) -> None:
    with pytest.raises(InvalidParameter, match="from 1 to 10"):
        parsed({"body": IMAGE}, x_top_k=value)


@pytest.mark.parametrize("value", [None, True, 1.5, [1], {}, "x"])
def test_an_unusable_top_k_in_json_is_an_invalid_parameter(value: object) -> None:
    with pytest.raises(InvalidParameter):
        parsed({"body": v1(TEXT, parameters={"top_k": value})})


TOO_MUCH = {
    "long-numbers": b'{"inputs": [{"datatype": "BYTES", "data": [""], "shape": ['
    + b",".join([b"9" * 4300] * 1200)
    + b"]}]}",
    "many-numbers": b'{"inputs": [{"datatype": "BYTES", "data": [""], "shape": [' + b"9," * 1_000_000 + b"9]}]}",
    "many-objects": b'{"instances": [' + b"{}," * 2_000_000 + b"{}]}",
    "nested-lists": b'{"instances": [' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"]}",
    "long-option": b'{"instances": [{"b64": ""}], "parameters": {"top_k": ' + b"7" * 4299 + b"}}",
}


@pytest.mark.parametrize("body", TOO_MUCH.values(), ids=TOO_MUCH.keys())
def test_numbers_and_lists_without_end_are_refused_in_milliseconds(body: bytes) -> None:
    started = time.process_time()
    with pytest.raises(InvalidParameter):
        parsed({"body": body})
    assert time.process_time() - started < 0.2


LARGE = bytes(MAX_BODY_BYTES)
COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    " Deflate , identity": lambda data: zlib.compress(data, wbits=-15),
    "identity": bytes,
    "": bytes,
}


@pytest.mark.parametrize("encoding", COMPRESSED)
def test_a_compressed_body_is_the_same_request(encoding: str) -> None:
    compress = COMPRESSED[encoding]
    assert parsed({"body": compress(IMAGE)}, content_encoding=encoding).images == (IMAGE,)
    request = parsed({"body": bytearray(compress(v2([TEXT], id="a")))}, content_encoding=encoding)
    assert (request.images, request.protocol) == ((IMAGE,), "v2")
    broken = RawRequest("id", {"body": compress(b'{"inputs": 1}')}, {"content-encoding": encoding})
    assert is_v2(broken)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_decompression_bomb_is_too_large(encoding: str) -> None:
    assert parsed({"body": COMPRESSED[encoding](LARGE)}, content_encoding=encoding).images == (LARGE,)
    with pytest.raises(ImageTooLarge, match="16,777,216"):
        parsed({"body": COMPRESSED[encoding](bytes(200 << 20))}, content_encoding=encoding)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress"])
def test_other_encodings_are_named_with_those_that_are_accepted(encoding: str) -> None:
    with pytest.raises(UnsupportedEncoding, match="as gzip or as deflate"):
        parsed({"body": IMAGE}, content_encoding=encoding)


@pytest.mark.parametrize(
    "body", [IMAGE, gzip.compress(IMAGE)[:-9], gzip.compress(IMAGE) + b"x", b"\x1f\x8b", b"\x78\x9c"]
)
def test_a_body_that_is_not_what_its_encoding_says_is_an_invalid_request(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parsed({"body": body}, content_encoding="gzip")


def test_png_is_an_answer_to_an_explanation_of_one_image_only() -> None:
    assert parsed({"body": IMAGE}, explain=True, x_format="png").format == "png"
    for attempt in ({"body": IMAGE}, {"body": v1(TEXT, TEXT)}):
        with pytest.raises(InvalidParameter):
            parsed(dict(attempt), explain=len(attempt["body"]) > 50, x_format="png")


def test_no_bytes_whatever_raise_anything_but_a_service_error() -> None:
    seeds = [v1(TEXT, parameters={"top_k": 2}), v2([TEXT], id="a")]
    for seed in seeds:
        for index in range(len(seed)):
            for replacement in (b"", b"\x00", b"[", b'"', b"9"):
                try:
                    parsed({"body": seed[:index] + replacement + seed[index + 1 :]})
                except ServiceError:
                    continue
