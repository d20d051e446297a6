import io
import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from loadtests.load.http_client import RemoteTargetError, Target, parse_headers
from loadtests.load.images import EncodedImage, encode_jpeg, parse_sizes, read_images, synthetic_image, synthetic_images
from loadtests.load.workload import Item, Workload, invalid_bodies
from loadtests.results.validation import Outcome, judge, parse_timing, top_label

LOOPBACK = "http://127.0.0.1:8080/predictions/flowers"
VALID = EncodedImage("a.jpg", encode_jpeg(synthetic_image(64, 48, 0)))


def _answer(label: str) -> bytes:
    return json.dumps({"predictions": [{"label": label, "probability": 0.9}]}).encode()


def test_drawn_photographs_are_jpegs_of_their_size_and_the_same_every_time() -> None:
    first, again = (synthetic_images({(120, 80): 0.75, (60, 90): 0.25}, per_size=2) for _ in range(2))
    assert first == again
    assert len({image.body for image in first}) == 4
    assert [Image.open(io.BytesIO(image.body)).size for image in first] == [(120, 80)] * 2 + [(60, 90)] * 2
    assert [image.weight for image in first] == [0.375, 0.375, 0.125, 0.125]


def test_folder_names_are_labels_and_a_csv_goes_before_them(tmp_path: Path) -> None:
    (tmp_path / "rose").mkdir()
    (tmp_path / "rose" / "1.jpg").write_bytes(VALID.body)
    (tmp_path / "2.jpg").write_bytes(VALID.body)
    (tmp_path / "notes.txt").write_text("not a image")
    assert [(image.name, image.label) for image in read_images(tmp_path)] == [
        ("2.jpg", None),
        ("rose/1.jpg", "rose"),
    ]
    labels = tmp_path / "labels.csv"
    labels.write_text("1.jpg,tulip\n2.jpg,daisy\n")
    assert [image.label for image in read_images(tmp_path, labels)] == ["daisy", "tulip"]


def test_of_many_photographs_some_are_taken_evenly(tmp_path: Path) -> None:
    for place in range(10):
        (tmp_path / f"{place}.jpg").write_bytes(VALID.body)
    assert [image.name for image in read_images(tmp_path, at_most=3)] == ["0.jpg", "3.jpg", "6.jpg"]


def test_a_folder_without_photographs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no images"):
        read_images(tmp_path)


@pytest.mark.parametrize("text", ["500", "500xa", "x:1", "500x300:much"])
def test_sizes_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="WIDTHxHEIGHT"):
        parse_sizes(text)


def test_every_broken_body_is_one_that_a_decoder_refuses() -> None:
    bodies = invalid_bodies(VALID.body)
    assert {"empty", "text", "truncated", "noise", "gigapixel"} <= set(bodies)
    for kind, body in bodies.items():
        with pytest.raises((OSError, SyntaxError, Image.DecompressionBombError)):
            Image.open(io.BytesIO(body)).load()
            pytest.fail(f"{kind} is sound")


def test_traffic_mixes_by_weight_and_share_and_repeats_itself() -> None:
    often, seldom = EncodedImage("often", VALID.body, 9), EncodedImage("seldom", VALID.body, 1)
    drawn = [Workload([often, seldom], {}, 0.1, seed=5) for _ in range(2)]
    sequences = [[source.next().name for _ in range(4000)] for source in drawn]
    counts = Counter(sequences[0])
    assert sequences[0] == sequences[1]
    assert 0.86 * 0.9 < counts["often"] / 4000 < 0.94 * 0.9
    assert 0.08 < 1 - (counts["often"] + counts["seldom"]) / 4000 < 0.12


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_of_broken_bodies_outside_its_range_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        Workload([VALID], {}, share)


@pytest.mark.parametrize(
    ("item", "status", "body", "kind"),
    [
        pytest.param(Item("a", b"", "rose"), 200, _answer("rose"), "ok", id="the expected label"),
        pytest.param(Item("a", b"", "rose"), 200, _answer("tulip"), "wrong", id="another label"),
        pytest.param(Item("a", b"", "rose"), 200, b"{}", "failed", id="no label"),
        pytest.param(Item("a", b"", "rose"), 200, b"<html>", "failed", id="no JSON"),
        pytest.param(Item("a", b"", "rose"), 503, b"", "failed", id="a server error"),
        pytest.param(Item("a", b"", "rose"), 400, b"", "failed", id="a refused sound image"),
        pytest.param(Item("empty", b"", invalid=True), 400, b"", "rejected", id="a refused invalid body"),
        pytest.param(Item("text", b"", invalid=True), 415, b"", "rejected", id="a invalid body of no known type"),
        pytest.param(Item("text", b"", invalid=True), 429, b"", "failed", id="a invalid body turned away for load"),
        pytest.param(Item("text", b"", invalid=True), 200, _answer("rose"), "failed", id="a invalid body answered"),
        pytest.param(Item("text", b"", invalid=True), 500, b"", "failed", id="a invalid body that broke the server"),
    ],
)
def test_an_answer_is_judged_by_status_and_label(item: Item, status: int, body: bytes, kind: str) -> None:
    assert judge(item, status, body).kind == kind


def test_the_reason_of_a_failure_names_the_services_own_code() -> None:
    body = b'{"error": {"code": "overloaded", "message": "later"}}'
    assert judge(Item("a", b"", "rose"), 429, body) == Outcome("failed", "status 429 overloaded")


def test_labels_are_read_from_our_answers_and_from_torchserves_own() -> None:
    assert top_label(_answer("rose")) == "rose"
    assert top_label(b'{"tabby": 0.4, "tiger cat": 0.5}') == "tiger cat"
    assert top_label(b"[1]") is None


def test_server_timing_is_read_and_what_makes_no_sense_is_left_out() -> None:
    assert parse_timing("decode;dur=1.5, inference;desc=x;dur=3, cache, bad;dur=x") == {"decode": 1.5, "inference": 3.0}
    assert parse_timing("") == {}


def test_another_machine_is_refused_unless_allowed() -> None:
    with pytest.raises(RemoteTargetError, match="--allow-remote"):
        Target.parse("http://192.0.2.7:8080/predictions/flowers")
    assert Target.parse("http://192.0.2.7:8080/x", allow_remote=True).port == 8080


@pytest.mark.parametrize("url", [LOOPBACK, "http://127.8.9.1/x", "http://localhost:1/x", "http://[::1]:8080/x"])
def test_this_machine_is_allowed_by_all_its_names(url: str) -> None:
    assert Target.parse(url).url.startswith("http://")


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://127.0.0.1/x", "http:///x", ""])
def test_what_is_no_http_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="address"):
        Target.parse(url)


def test_a_request_carries_its_length_headers_and_query() -> None:
    request = Target.parse(LOOPBACK + "?top_k=1", {"X-Key": "1"}).request(b"abc")
    assert request.startswith(b"POST /predictions/flowers?top_k=1 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n")
    assert b"Content-Length: 3\r\n" in request
    assert request.endswith(b"X-Key: 1\r\n\r\nabc")


@pytest.mark.parametrize("entry", ["no colon", ": empty", "a: b\r\nc: d"])
def test_headers_that_cannot_be_sent_are_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="header"):
        parse_headers([entry])
