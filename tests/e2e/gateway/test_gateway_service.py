"""The gateway in front of a real TorchServe: the contract holds, and what TorchServe gets wrong is made right."""

import gzip
import json
import os
import re
import signal
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.e2e.conftest import E2E, VERSION, Service, start, stop
from tests.e2e.gateway.gateways import NEEDS_NGINX, Gateway, code, running
from tests.e2e.invalid_requests import Breakage, breakages

pytestmark = [*E2E, NEEDS_NGINX]

BACK_TIMEOUT_S = 400
BROKEN_FORM = b"--x\r\nContent-Disposition: form-data\r\n\r\nhello\r\n--x--\r\n"


def address(service: Service, port: str = "port") -> str:
    return f"127.0.0.1:{service.ports[port]}"


@pytest.fixture(scope="module")
def gateway(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    behind = {"status": address(service, "status_port"), "records": address(service, "access_port")}
    folder = tmp_path_factory.mktemp("gateway")
    with running(folder, address(service), workers=2, answer_timeout_s=45, **behind) as running_server:
        yield running_server


def test_an_answer_is_the_same_with_and_without_the_gateway(
    service: Service, gateway: Gateway, photograph: bytes
) -> None:
    direct = service.put(photograph, x_top_k="3")
    for path in ("predictions/flowers?top_k=3", f"predictions/flowers/{VERSION}?top_k=3"):
        answer = gateway.put(photograph, path)
        assert (answer.status_code, answer.content) == (200, direct.content)
        assert answer.headers["server-timing"].startswith("decode;dur=")
    curls = requests.post(
        gateway.url("predictions/flowers?top_k=3"),
        data=photograph,
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        timeout=60,
    )
    form = requests.post(gateway.url("predictions/flowers"), files={"f": photograph}, data={"top_k": "3"}, timeout=60)
    assert curls.content == form.content == direct.content


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_body_is_answered_and_a_bomb_refused_with_and_without_the_gateway(
    service: Service, gateway: Gateway, photograph: bytes, encoding: str
) -> None:
    compress = gzip.compress if encoding == "gzip" else zlib.compress
    plain = service.put(photograph)
    bomb = compress(bytes(100_000_000))
    for put in (service.put, gateway.put):
        answer = put(compress(photograph), content_encoding=encoding)
        assert (answer.status_code, answer.content) == (200, plain.content)
        refused = put(bomb, content_encoding=encoding)
        assert (refused.status_code, refused.json()["error"]["code"]) == (413, "image_too_large")
        broken = put(compress(photograph)[:-100], content_encoding=encoding)
        assert broken.status_code == 400
        unknown = put(photograph, content_encoding="br")
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (415, "unsupported_encoding")


def test_an_explanation_can_be_asked_for_as_a_picture(gateway: Gateway, photograph: bytes) -> None:
    answer = gateway.put(photograph, "explanations/flowers?format=png")
    assert answer.headers["content-type"] == "image/png"
    assert answer.content.startswith(b"\x89PNG")


def test_both_protocols_are_answered_on_their_own_paths(gateway: Gateway) -> None:
    v2 = {"inputs": [{"name": "images", "datatype": "BYTES", "shape": [1], "data": [PIXEL]}]}
    answer = requests.post(gateway.url(f"v2/models/flowers/versions/{VERSION}/infer"), json=v2, timeout=60)
    assert [tensor["name"] for tensor in answer.json()["outputs"]][:2] == ["label", "probability"]
    v1 = requests.post(gateway.url("v1/models/flowers:predict"), json={"instances": [{"b64": PIXEL}]}, timeout=60)
    assert len(v1.json()["predictions"]) == 1


# A PNG of one pixel.
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def test_every_broken_request_gets_the_handlers_own_answer(
    service: Service, gateway: Gateway, photograph: bytes
) -> None:
    for breakage in breakages(photograph):
        answer = gateway.put(breakage.body, x_request_id="same", **headers(breakage))
        direct = service.put(breakage.body, x_request_id="same", **headers(breakage))
        content = answer.json()
        # Of Open Inference V2's errors the code stands beside the sentence.
        error_code = content["code"] if isinstance(content["error"], str) else content["error"]["code"]
        assert (answer.status_code, error_code) == (breakage.status, breakage.code), breakage.name
        assert answer.content == direct.content, breakage.name
        assert answer.headers["x-request-id"] == "same"


def headers(breakage: Breakage) -> dict[str, str]:
    return {name.replace("-", "_"): value for name, value in breakage.headers.items()}


@pytest.mark.parametrize("path", ["predictions/nothing", "predictions/flowers/9.9", "v2/models/nothing/infer"])
def test_an_unknown_model_or_version_is_not_found(gateway: Gateway, photograph: bytes, path: str) -> None:
    answer = gateway.put(photograph, path)
    assert (answer.status_code, code(answer)) == (404, "not_found")


def test_a_form_that_torchserve_calls_its_own_failure_is_an_invalid_request(service: Service, gateway: Gateway) -> None:
    form = {"content_type": "multipart/form-data; boundary=x"}
    assert service.put(BROKEN_FORM, **form).status_code == 500
    answer = gateway.put(BROKEN_FORM, **form)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")


def test_a_form_of_many_fields_is_refused_at_once(gateway: Gateway, photograph: bytes) -> None:
    field = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
    form = field * 150_000 + b"--x--\r\n"
    started = time.monotonic()
    answer = gateway.put(form, content_type="multipart/form-data; boundary=x")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
    assert "fields" in answer.text
    assert gateway.put(photograph).status_code == 200
    # 16 s where TorchServe reads it; here it is copied and split.
    assert time.monotonic() - started < 8


def test_what_the_status_server_says_is_said_at_the_gateway(service: Service, gateway: Gateway) -> None:
    for path in (
        *(
            "livez",
            "readyz",
            "models",
            "models/flowers",
            "v2",
            "v2/models/flowers",
            "v2/health/live",
            "v2/health/ready",
        ),
        *("v2/models/flowers/ready", f"v2/models/flowers/versions/{VERSION}"),
    ):
        direct, answer = requests.get(service.url(path, "status_port"), timeout=30), gateway.get(path)
        assert answer.headers["content-type"] == direct.headers["content-type"], path
        assert (answer.status_code, answer.content) == (200, direct.content), path
    assert (
        gateway.get("openapi.yaml").status_code
        == requests.get(service.url("openapi.yaml", "status_port"), timeout=30).status_code
    )
    assert gateway.get("v1/models/flowers").json() == gateway.get("models/flowers").json()
    unknown = gateway.get("models/nothing")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "not_found")


def test_what_only_the_pod_may_do_cannot_be_done_at_the_gateway(service: Service, gateway: Gateway) -> None:
    for path in ("drain", "metrics", "models?url=http://127.0.0.1:1/x.mar", "models/flowers?min_worker=0", "workflows"):
        for method in ("GET", "POST", "PUT", "DELETE"):
            asked = requests.request(method, gateway.url(path), timeout=30)
            assert asked.status_code in (404, 405) or (method == "GET" and path.startswith("models"))
    assert requests.get(service.url("readyz", "status_port"), timeout=30).status_code == 200
    assert len(service.workers()) >= 1


def test_requests_at_the_gateway_are_counted_by_route_and_status(
    service: Service, gateway: Gateway, photograph: bytes
) -> None:
    def counted() -> float:
        text = requests.get(service.url("metrics", "status_port"), timeout=30).text
        sample = re.search(r'^gateway_requests_total\{route="explanations",status="415"\} (\S+)$', text, re.MULTILINE)
        return float(sample[1]) if sample else 0.0

    before = counted()
    assert gateway.put(photograph, "explanations/flowers").status_code == 200
    assert [gateway.put(b"no image", "explanations/flowers").status_code for _ in range(3)] == [415] * 3
    deadline = time.monotonic() + 10
    while counted() < before + 3:
        assert time.monotonic() < deadline, "the records do not arrive"
        time.sleep(0.1)
    assert counted() == before + 3


def test_connections_closed_after_errors_lose_no_request(gateway: Gateway, photograph: bytes) -> None:
    def send(index: int) -> int:
        return gateway.put(photograph if index % 2 else b"no image").status_code

    with ThreadPoolExecutor(8) as pool:
        assert Counter(pool.map(send, range(200))) == {200: 100, 415: 100}


def test_a_crowd_gets_answers_or_429_and_no_ids_are_mixed_up(gateway: Gateway, photograph: bytes) -> None:
    def send(index: int) -> tuple[int, bool]:
        answer = gateway.put(photograph, x_request_id=f"crowd-{index}")
        return answer.status_code, answer.headers["x-request-id"] == f"crowd-{index}"

    with ThreadPoolExecutor(100) as pool:
        counted = Counter(pool.map(send, range(400)))
    assert set(counted) <= {(200, True), (429, True)}
    assert counted[200, True] > 0


def test_clients_that_leave_cost_those_that_stay_no_more_than_429(gateway: Gateway, photograph: bytes) -> None:
    head = b"PUT /predictions/flowers HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(photograph)

    def leave(_: int) -> None:
        with gateway.connect() as connection:
            connection.sendall(head + photograph)
            time.sleep(0.05)

    with ThreadPoolExecutor(60) as pool:
        leaving = [pool.submit(leave, index) for index in range(400)]
        staying = [pool.submit(lambda: gateway.put(photograph).status_code) for _ in range(100)]
        for future in leaving:
            future.result()
        counted = Counter(future.result() for future in staying)
    assert set(counted) <= {200, 429}
    deadline = time.monotonic() + 60
    while gateway.put(photograph).status_code != 200:
        assert time.monotonic() < deadline, "the places do not come back"
        time.sleep(0.2)


@pytest.mark.parametrize("killed", [1, 99], ids=["one", "all"])
def test_killed_workers_cost_no_answer_or_are_unavailable_and_never_an_unknown_error(
    service: Service, gateway: Gateway, photograph: bytes, killed: int
) -> None:
    seen: Counter[tuple[int, str]] = Counter()

    def send(_: int) -> None:
        answer = gateway.put(photograph)
        seen[answer.status_code, "" if answer.ok else answer.json()["error"]["code"]] += 1

    with ThreadPoolExecutor(16) as pool:
        sent = [pool.submit(send, index) for index in range(600)]  # more than it answers before they are killed
        time.sleep(0.3)
        for worker in service.workers()[:killed]:
            os.kill(worker["pid"], signal.SIGKILL)
        for future in sent:
            future.result()
    if killed == 1:  # its batch went to another one
        assert seen == {(200, ""): 600}
    # What waits in TorchServe while no worker lives may run out of time.
    assert set(seen) <= {(200, ""), (503, "unavailable"), (504, "deadline_exceeded")}
    deadline = time.monotonic() + BACK_TIMEOUT_S
    while gateway.put(photograph).status_code != 200:
        assert time.monotonic() < deadline, "no worker came back"
        time.sleep(0.5)


def test_torchserves_full_queue_is_unavailable_with_a_time_to_come_back(
    model_store: Path, photograph: bytes, tmp_path: Path
) -> None:
    environment = {"TS_JOB_QUEUE_SIZE": "1", "TS_DEFAULT_WORKERS_PER_MODEL": "1"}
    service = start(model_store, tmp_path / "service.log", **environment)
    try:
        with (
            running(tmp_path, address(service), concurrency=64, per_client=64) as gateway,
            ThreadPoolExecutor(40) as pool,
        ):
            answers = list(pool.map(lambda _: gateway.put(photograph), range(200)))
    finally:
        assert stop(service) == 0
    refused = [answer for answer in answers if answer.status_code != 200]
    assert {answer.status_code for answer in refused} == {503}
    assert {json.loads(answer.content)["error"]["code"] for answer in refused} == {"unavailable"}
    assert {answer.headers["retry-after"] for answer in refused} == {"2"}
