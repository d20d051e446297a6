import contextlib
import os
import signal
import time
from pathlib import Path

import psutil
import pytest
import requests

from tests.e2e.conftest import E2E, ROOT, Service, start, stop

pytestmark = E2E

BACK_TIMEOUT_S = 400


def test_a_killed_worker_comes_back_and_answers(service: Service, photograph: bytes) -> None:
    expected = service.put(photograph).content
    before = {worker["pid"] for worker in service.workers()}
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    assert answer_of_the_next_worker(service, photograph) == expected
    assert not before & {worker["pid"] for worker in service.workers() if worker["status"] == "READY"}


def answer_of_the_next_worker(service: Service, photograph: bytes) -> bytes:
    """Ask until a worker answers; the front end may refuse, reset or wait meanwhile."""
    deadline = time.monotonic() + BACK_TIMEOUT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(requests.RequestException):
            answer = service.put(photograph)
            if answer.status_code == requests.codes.ok:
                return answer.content
        time.sleep(0.5)
    pytest.fail(f"no worker came back:\n{service.log.read_text()}")


def test_nothing_can_be_registered_over_the_network(service: Service) -> None:
    for path in ("models?url=http://127.0.0.1:1/x.mar", "workflows?url=http://127.0.0.1:1/x.war"):
        assert requests.post(service.url(path, "management_port"), timeout=30).status_code in (404, 405)
    assert requests.delete(service.url("models/flowers", "management_port"), timeout=30).status_code == 405


def test_only_this_machine_can_reach_the_ports(service: Service) -> None:
    child = psutil.Process(service.process.pid).children(recursive=True)
    listening = [
        connection.laddr
        for process in child
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert {address.port for address in listening} >= set(service.ports.values())
    assert {address.ip.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}


def test_sigterm_ends_the_service_and_all_that_it_started(model_store: Path, tmp_path: Path) -> None:
    litter = {name for name in ("logs", "key_file.json") if (ROOT / name).exists()}
    own = {"TMPDIR": str(tmp_path), "TS_DEFAULT_WORKERS_PER_MODEL": "1"}
    service = start(model_store, tmp_path / "service.log", **own)
    assert len(service.workers()) == 1
    family = psutil.Process(service.process.pid).children(recursive=True)
    assert family
    assert stop(service) == 0
    assert not [process for process in family if process.is_running()]
    assert [path.name for path in tmp_path.iterdir()] == ["service.log"]
    assert {name for name in ("logs", "key_file.json") if (ROOT / name).exists()} == litter


def test_the_log_holds_no_line_per_request(service: Service, photograph: bytes) -> None:
    before = service.log.stat().st_size
    for _ in range(5):
        service.put(photograph)
        service.put(b"no image")
    assert service.log.stat().st_size == before
