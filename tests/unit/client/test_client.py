import base64
import builtins
import itertools
import json
import socket
import subprocess
import sys
import threading
import time
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from tests.unit.client.conftest import IMAGE
from tests.unit.client.fake_service import ANSWER, MODEL, TENSORS, Scripted, serving
from visionserve.client import (
    Client,
    Model,
    Prediction,
    ResponseError,
    Retries,
    ServiceUnreachable,
    Workers,
)
from visionserve.client.http_messages import Address


def test_an_answer_is_typed(client_of: Any) -> None:
    timed = Scripted(headers={"Server-Timing": "decode;dur=2.50, inference;dur=4, total;dur=x, cache"})
    with serving(timed) as service:
        answer = client_of(service).predict(IMAGE, "flowers", top_k=2, request_id="call-1")
    assert answer.predictions == (Prediction("rose", 3, 0.75), Prediction("dahlia", 1, 0.2))
    assert (answer.best.label, answer.novelty, answer.model.version) == ("rose", 0.25, "1.0")
    assert answer.timings == {"decode": 0.0025, "inference": 0.004}
    assert (answer.request_id, answer.heatmap) == ("call-1", None)


def test_the_file_is_the_body_and_options_are_headers(client_of: Any, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(IMAGE)
    with serving() as service:
        answer = client_of(service, api_key="key-1").predict(tmp_path / "photo.jpg", "my model", 2, version="1.0")
    asked = service.asked[0]
    assert (asked.method, asked.path, asked.body) == ("PUT", "/predictions/my%20model/1.0", IMAGE)
    assert (asked.headers["x-top-k"], asked.headers["authorization"]) == ("2", "Bearer key-1")
    assert asked.headers["x-request-id"] == answer.request_id
    assert len(answer.request_id) == 32


def test_without_top_k_and_key_none_is_sent(client_of: Any) -> None:
    with serving() as service:
        client_of(service).predict(IMAGE, "flowers")
    assert not {"x-top-k", "authorization", "x-format"} & set(service.asked[0].headers)


@pytest.mark.parametrize("version", ["infer", "models", "ready"])
def test_a_version_may_have_the_name_of_a_route(client_of: Any, version: str) -> None:
    with serving() as service:
        answer = client_of(service).predict(IMAGE, "flowers", version=version)
    assert service.asked[0].path == f"/predictions/flowers/{version}"
    assert answer.best.label == "rose"


def test_v2_sends_a_tensor_and_reads_tensors(client_of: Any) -> None:
    with serving(Scripted(content=TENSORS)) as service:
        answer = client_of(service, protocol="v2").predict(IMAGE, "flowers", version="1.0")
    assert service.asked[0].path == "/v2/models/flowers/versions/1.0/infer"
    tensor = json.loads(service.asked[0].body)["inputs"][0]
    assert base64.b64decode(tensor["data"][0]) == IMAGE
    assert answer.best == Prediction("rose", 3, 0.75)
    assert answer.novelty == 0.25


def test_an_explanation_carries_its_heatmap(client_of: Any) -> None:
    text = base64.b64encode(b"picture").decode()
    with serving(Scripted(content={**ANSWER, "heatmap": text})) as service:
        assert client_of(service).explain(IMAGE, "flowers").heatmap == b"picture"
    assert service.asked[0].path == "/explanations/flowers"
    tensors = {**TENSORS, "outputs": [*TENSORS["outputs"], {"name": "heatmap", "data": [text]}]}
    with serving(Scripted(content=tensors)) as service:
        assert client_of(service, protocol="v2").explain(IMAGE, "flowers").heatmap == b"picture"


def test_an_overlay_is_the_picture_itself(client_of: Any) -> None:
    with serving(Scripted(content=b"png", headers={"Content-Type": "image/png"})) as service:
        assert client_of(service).overlay(IMAGE, "flowers") == b"png"
    assert service.asked[0].headers["x-format"] == "png"


def test_models_come_from_the_status_address(client_of: Any) -> None:
    listed, one = Scripted(content={"models": [MODEL]}), Scripted(content={**MODEL, "card": {"labels": ["rose"]}})
    with serving() as photographs, serving(listed, one) as status:
        client = client_of(photographs, status_url=status.url + "/")
        assert client.models() == [Model("flowers", "1.0", "ab" * 32, "ready", Workers(2, 2))]
        assert client.model("flowers").card == {"labels": ["rose"]}
    assert [asked.path for asked in status.asked] == ["/models", "/models/flowers"]
    assert photographs.asked == []


def test_a_model_that_still_loads_has_no_version_yet(client_of: Any) -> None:
    loading = {**MODEL, "version": None, "digest": None, "status": "loading", "workers": {"ready": 0, "total": 2}}
    with serving(Scripted(content=loading)) as service:
        assert client_of(service).model("flowers") == Model("flowers", "", "", "loading", Workers(0, 2))


def test_a_refusal_carries_status_code_message_and_id(client_of: Any) -> None:
    body = {"error": {"code": "unsupported_image", "message": "This is not an image."}, "request_id": "id-9"}
    with serving(Scripted(415, body)) as service, pytest.raises(ResponseError) as refused:
        client_of(service).predict(IMAGE, "flowers")
    error = refused.value
    assert (error.status, error.code, error.message) == (415, "unsupported_image", "This is not an image.")
    assert (error.request_id, str(error)) == ("id-9", "This is not an image. (unsupported_image)")
    assert len(service.asked) == 1


@pytest.mark.parametrize(
    ("reply", "code", "message"),
    [
        (Scripted(413, b""), "image_too_large", f"413 {HTTPStatus(413).phrase}"),
        (Scripted(404, {"code": 404, "type": "ModelNotFoundException", "message": "No model x."}), "not_found", "No m"),
        (Scripted(415, {"error": "No image.", "code": "unsupported_image"}), "unsupported_image", "No image."),
        (Scripted(401, [1]), "unauthorized", "401"),
        (Scripted(500, {"error": "broken"}), "internal_error", "500"),
        (Scripted(599, b""), "internal_error", "599"),
        (Scripted(302, b"", {"Location": "http://127.0.0.1:9/"}), "internal_error", "302 Found"),
    ],
    ids=["empty", "torchserve", "open-inference", "list", "other-error", "unknown-status", "redirect"],
)
def test_answers_of_others_are_refusals_too(client_of: Any, reply: Scripted, code: str, message: str) -> None:
    with serving(reply) as service, pytest.raises(ResponseError, match=message) as refused:
        client_of(service).predict(IMAGE, "flowers")
    assert refused.value.code == code


@pytest.mark.parametrize("content", [b"<html>", [], {}, {**ANSWER, "predictions": []}, {**ANSWER, "novelty": None}])
def test_a_stranger_on_the_port_is_named_as_such(client_of: Any, content: Any) -> None:
    with (
        serving(Scripted(content=content)) as service,
        pytest.raises(ServiceUnreachable, match="is not visionserve's"),
    ):
        client_of(service).predict(IMAGE, "flowers")


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_service_is_asked_again_under_the_same_id(client_of: Any, status: int) -> None:
    with serving(Scripted(status, b""), Scripted(status, b""), Scripted()) as service:
        assert client_of(service).predict(IMAGE, "flowers").best.label == "rose"
    assert len({asked.headers["x-request-id"] for asked in service.asked}) == 1
    assert len(service.asked) == 3


def test_a_retry_after_is_waited_for(client_of: Any) -> None:
    with serving(Scripted(429, b"", {"Retry-After": "1"}), Scripted()) as service:
        started = time.monotonic()
        client_of(service).predict(IMAGE, "flowers")
    assert time.monotonic() - started >= 1


def test_a_retry_after_beyond_the_calls_time_is_not_waited_for(client_of: Any) -> None:
    with serving(Scripted(503, b"", {"Retry-After": "60"})) as service, pytest.raises(ResponseError) as refused:
        client_of(service, timeout_s=5).predict(IMAGE, "flowers")
    assert refused.value.code == "unavailable"
    assert len(service.asked) == 1


def test_a_service_that_stays_busy_is_a_refusal_in_the_end(client_of: Any) -> None:
    with serving(Scripted(429, b"")) as service, pytest.raises(ResponseError, match="429"):
        client_of(service, retries=Retries(2, 0.001)).predict(IMAGE, "flowers")
    assert len(service.asked) == 3


def test_a_connection_that_breaks_is_tried_again(client_of: Any) -> None:
    with serving(Scripted(None), Scripted()) as service:
        assert client_of(service).predict(IMAGE, "flowers").best.label == "rose"


def test_a_service_that_is_not_there_is_one_sentence(client_of: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
    with pytest.raises(ServiceUnreachable) as unreachable:
        client_of(url).predict(IMAGE, "flowers")
    assert str(unreachable.value) == f"No visionserve service answers at {url}: Connection refused."
    assert client_of(url).ready() is False


def test_a_service_that_hangs_is_given_up_in_time(client_of: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(ServiceUnreachable, match=r"no answer within 0\.3 s"):
            client_of(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.3).predict(IMAGE, "flowers")
    assert time.monotonic() - started < 3


@pytest.mark.parametrize(("status", "ready"), [(200, True), (503, False)])
def test_ready_asks_once(client_of: Any, status: int, ready: bool) -> None:
    with serving(Scripted(status, {})) as service:
        assert client_of(service).ready() is ready
    assert [asked.path for asked in service.asked] == ["/readyz"]


def test_connections_are_used_again(client_of: Any) -> None:
    with serving() as service:
        client = client_of(service)
        for _ in range(5):
            client.predict(IMAGE, "flowers")
    assert service.connections == 1


def test_many_files_are_answered_in_order_and_bad_ones_stay_in_their_place(client_of: Any, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.jpg" for number in range(9)]
    for path in paths[:8]:
        path.write_bytes(IMAGE)
    refusal = Scripted(400, {"error": {"code": "corrupt_image", "message": "Broken."}, "request_id": "x"})
    with serving(Scripted(), refusal, Scripted()) as service:
        outcomes = list(client_of(service).predict_many(paths, "flowers", concurrency=3))
    assert [outcome.path for outcome in outcomes] == paths
    assert sum(isinstance(outcome.error, ResponseError) for outcome in outcomes) == 1
    assert isinstance(outcomes[8].error, FileNotFoundError)
    assert sum(outcome.answer is not None for outcome in outcomes) == 7


def test_no_more_files_are_taken_than_are_being_asked_about(client_of: Any, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(IMAGE)
    taken = itertools.count()
    endless = (tmp_path / "photo.jpg" for _ in iter(lambda: next(taken), None))
    with serving() as service:
        outcomes = client_of(service).predict_many(endless, "flowers", concurrency=2)
        for _ in range(3):
            next(outcomes)
        outcomes.close()
    assert next(taken) <= 8


def test_a_service_that_goes_away_ends_it_after_what_was_answered(client_of: Any, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(IMAGE)
    with serving(Scripted(), Scripted(None)) as service:
        outcomes = client_of(service).predict_many([tmp_path / "photo.jpg"] * 9, "flowers", concurrency=1)
        assert next(outcomes).answer is not None
        with pytest.raises(ServiceUnreachable):
            next(outcomes)


def test_one_client_serves_several_threads() -> None:
    with serving() as service, Client(service.url) as client:
        threads = [threading.Thread(target=client.predict, args=(IMAGE, "flowers")) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(service.asked) == 16


@pytest.mark.parametrize("key", ["a\nb", "schlüssel", "a\x00", " ", "", "a b"])
def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(ValueError, match="printable") as refused:
        Client("http://host", key)
    assert not key.strip() or key not in str(refused.value)


def test_a_key_is_not_shown_by_accident() -> None:
    assert "key-1" not in repr(Address("http://host", "key-1"))


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(ValueError, match="native or v2"):
        Client("http://host", protocol="v3")  # type: ignore[arg-type]


ALONE = """
import importlib.util, sys
hidden = {hidden!r}
find = importlib.util.find_spec
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hide())
importlib.util.find_spec = lambda name: None if name in hidden else find(name)
from visionserve.client import Client, GrpcClient
try:
    print(Client({url!r}).predict(b"image", "flowers").best.label)
    GrpcClient("127.0.0.1:7070")
except ImportError as error:
    print(error)
"""
HEAVY = ["torch", "numpy", "PIL", "openvino", "onnxruntime"]


@pytest.mark.parametrize(
    ("hidden", "printed"),
    [
        (["requests", *HEAVY], "rose"),
        (["grpc", "requests", *HEAVY], "rose\nGrpcClient needs grpcio: pip install grpcio."),
        (["httpx", "requests", *HEAVY], "The client needs httpx: pip install httpx."),
    ],
    ids=["both", "httpx", "nothing"],
)
def test_the_client_needs_httpx_and_nothing_else(hidden: list[str], printed: str) -> None:
    with serving() as service:
        command = [sys.executable, "-c", ALONE.format(hidden=hidden, url=service.url)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == printed, done.stderr


def test_every_public_name_is_listed_once_in_order() -> None:
    import visionserve.client

    assert sorted(visionserve.client.__all__) == visionserve.client.__all__
    assert not [name for name in visionserve.client.__all__ if name in dir(builtins)]
