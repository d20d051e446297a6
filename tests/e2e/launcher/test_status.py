import base64
import json
import re
import socket
import time
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import requests

from tests.e2e.conftest import E2E, Service

pytestmark = E2E

RECORD = {"route": "predictions", "status": 200, "duration_s": 0.2, "upstream_s": "0.19", "timing": "total;dur=40.00"}


def ask(service: Service, path: str, **headers: str) -> requests.Response:
    return requests.get(service.url(path, "status_port"), headers=headers, timeout=30)


def test_a_service_that_answers_is_alive_and_ready(service: Service) -> None:
    for path in ("livez", "readyz", "v2/health/live", "v2/health/ready", "v2/models/flowers/ready"):
        assert ask(service, path).status_code == 200


def test_the_models_are_listed_with_version_digest_and_workers(service: Service, photograph: bytes) -> None:
    (model,) = ask(service, "models").json()["models"]
    served = service.put(photograph).json()["model"]
    assert {"name": model["name"], "version": model["version"]} == served
    assert model["status"] == "ready"
    assert model["workers"] == {"ready": len(service.workers()), "total": len(service.workers())}
    assert f'digest="{model["digest"]}"' in ask(service, "metrics").text


def test_a_model_is_described_by_the_card_in_its_archive(service: Service, model_store: Path) -> None:
    with zipfile.ZipFile(model_store / "flowers.mar") as archive:
        card = json.loads(archive.read("card.json"))
    assert ask(service, "models/flowers").json()["card"] == card


def test_v2_metadata_describes_what_v2_requests_get(service: Service, photograph: bytes) -> None:
    metadata = ask(service, "v2/models/flowers").json()
    assert metadata == ask(service, f"v2/models/flowers/versions/{metadata['versions'][0]}").json()
    (taken,) = metadata["inputs"]
    tensor = {**taken, "shape": [1], "data": [base64.b64encode(photograph).decode()]}
    answer = service.post_json({"inputs": [tensor]}, "explanations/flowers").json()
    assert answer["model_name"] == metadata["name"]
    declared = {output["name"]: (output["datatype"], len(output["shape"])) for output in metadata["outputs"]}
    assert {o["name"]: (o["datatype"], len(o["shape"])) for o in answer["outputs"]} == declared


def test_what_is_not_there_is_404_in_the_form_of_all_errors(service: Service) -> None:
    for path in ("nothing", "models/tulips", "drain"):
        answer = ask(service, path, **{"x-request-id": "mine.1"})
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "not_found"
        assert answer.json()["request_id"] == "mine.1"
    assert ask(service, "v2/models/flowers/versions/9").json()["code"] == "not_found"


def test_metrics_hold_torchserves_families_and_ours_each_once(service: Service, photograph: bytes) -> None:
    service.put(photograph)
    text = ask(service, "metrics").text
    families = Counter(re.findall(r"(?m)^# TYPE (\S+)", text))
    assert {"ts_inference_requests_total", "visionserve_requests_total", "visionserve_workers"} <= set(families)
    assert set(families.values()) == {1}
    assert "visionserve_ready 1.0" in text


def test_the_gateways_records_become_metrics_and_malformed_ones_are_only_counted(service: Service) -> None:
    before = samples(service)
    datagrams = [record(), record(status=503), record(route="elsewhere"), b"<190>gateway: {", b"\xff\x00", b""]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for datagram in datagrams:
            sender.sendto(datagram, ("127.0.0.1", service.ports["access_port"]))
    deadline = time.monotonic() + 30
    while (
        grown(before, after := samples(service), "gateway_malformed_records_total") < 3 and time.monotonic() < deadline
    ):
        time.sleep(0.1)
    assert grown(before, after, "gateway_malformed_records_total") == 3
    assert grown(before, after, 'gateway_requests_total{route="predictions",status="200"}') == 1
    assert grown(before, after, 'gateway_requests_total{route="predictions",status="503"}') == 1
    assert grown(before, after, 'gateway_requests_total{route="other",status="200"}') == 1
    assert grown(before, after, 'gateway_request_duration_seconds_count{route="predictions"}') == 1
    assert round(grown(before, after, "gateway_queue_seconds_sum"), 3) == 0.3


def test_a_status_port_that_is_not_asked_properly_keeps_answering_others(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.ports["status_port"])) as idle:
        idle.sendall(b"GET /livez HTTP/1.1\r\n")
        assert ask(service, "livez").status_code == 200
    with socket.create_connection(("127.0.0.1", service.ports["status_port"])) as garbage:
        garbage.sendall(b"\x16\x03\x01\x00\r\n\r\n")
    assert ask(service, "livez").status_code == 200


def record(**changes: Any) -> bytes:
    return b"<190>Nov 21 09:00:00 gateway: " + json.dumps({**RECORD, **changes}).encode()


def samples(service: Service) -> dict[str, float]:
    lines = [line for line in ask(service, "metrics").text.splitlines() if line.startswith("gateway_")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def grown(before: dict[str, float], after: dict[str, float], name: str) -> float:
    return after.get(name, 0.0) - before.get(name, 0.0)
