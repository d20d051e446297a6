"""The gateway under load, slow clients and floods: limits hold, nothing hangs, good clients are served."""

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from tests.e2e.gateway.gateways import (
    NEEDS_NGINX,
    STOP_TIMEOUT_S,
    Behind,
    Gateway,
    Reply,
    Seen,
    behind,
    plain,
    read_all,
    running,
)

pytestmark = [pytest.mark.e2e, NEEDS_NGINX]

SLOW_CLIENTS = 300
# Generous, as other programs may want the cores; a client that had to wait for the slow ones would wait for ever.
PATIENCE_S = 10
HALF_A_HEAD = b"PUT /predictions/flowers HTTP/1.1\r\nHost: x\r\nX-Slow: "
HALF_A_BODY = b"PUT /predictions/flowers HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf"


def unhurried(_: Seen) -> Reply:
    time.sleep(0.05)
    return Reply()


@pytest.fixture
def server() -> Iterator[Behind]:
    with behind(unhurried) as running_server:
        yield running_server


def hold(gateway: Gateway, stack: ExitStack, count: int, start: bytes) -> list[socket.socket]:
    """Open connections that have something to say and do not finish."""
    connections = [stack.enter_context(gateway.connect()) for _ in range(count)]
    for connection in connections:
        connection.sendall(start)
    return connections


def test_beyond_its_concurrency_it_answers_429_and_never_lets_more_through(server: Behind, tmp_path: Path) -> None:
    with running(tmp_path, server.address, concurrency=4, workers=2) as gateway, ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda _: gateway.put(b"image"), range(400)))
    counted = Counter(answer.status_code for answer in answers)
    assert set(counted) == {200, 429}
    assert server.most_at_once <= 4
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["error"]["code"] == "overloaded"
    assert refused.headers["retry-after"] == "1"


def test_room_is_free_again_after_a_crowd(server: Behind, tmp_path: Path) -> None:
    with running(tmp_path, server.address, concurrency=2) as gateway:
        with ThreadPoolExecutor(20) as pool:
            list(pool.map(lambda _: gateway.put(b"image"), range(60)))
        assert [gateway.put(b"image").status_code for _ in range(10)] == [200] * 10


@pytest.mark.parametrize("start", [HALF_A_HEAD, HALF_A_BODY], ids=["headers", "bodies"])
def test_hundreds_of_slow_clients_take_no_place_and_are_cut_off(server: Behind, tmp_path: Path, start: bytes) -> None:
    with (
        running(tmp_path, server.address, concurrency=2, client_timeout_s=4) as gateway,
        ExitStack() as stack,
    ):
        connections = hold(gateway, stack, SLOW_CLIENTS, start)
        for _ in range(10):
            began = time.monotonic()
            assert gateway.put(b"image").status_code == 200
            assert time.monotonic() - began < PATIENCE_S
        assert len(server.seen) == 10
        for connection in connections:
            connection.settimeout(30)
            assert read_all(connection) == b""
        if start is HALF_A_BODY:
            # nginx answers nothing to a body that stops; it ends the connection and says so in the log.
            assert len(gateway.records(SLOW_CLIENTS, status=408)) == SLOW_CLIENTS


def test_a_client_may_have_so_many_uploads_and_no_more(server: Behind, tmp_path: Path) -> None:
    with running(tmp_path, server.address, uploads_per_client=8, client_timeout_s=60) as gateway, ExitStack() as stack:
        hold(gateway, stack, 8, HALF_A_BODY)
        time.sleep(1)
        answer = gateway.put(b"image")
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "overloaded")
        assert requests.get(gateway.url(""), timeout=30).status_code == 200


def test_a_rate_is_each_clients_own(server: Behind, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("one:1111111111111111\ntwo:2222222222222222\n")
    with running(tmp_path, server.address, rate=1, burst=2, api_keys_file=keys) as gateway:
        first = Counter(gateway.put(b"image", x_api_key="1" * 16).status_code for _ in range(10))
        assert first[429] >= 5
        assert first[200] >= 3
        assert gateway.put(b"image", x_api_key="2" * 16).status_code == 200


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A folder on a disk of one megabyte."""
    folder = Path(f"/tmp/gateway-small-disk-{os.getpid()}")
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=1777", "tmpfs", str(folder)]
    try:
        if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            pytest.skip("a small disk cannot be mounted here: run the tests as root, with CAP_SYS_ADMIN")
        yield folder
        subprocess.run(["umount", str(folder)], check=True)
    finally:
        folder.rmdir()


def test_a_full_disk_refuses_what_needs_it_and_nothing_else(server: Behind, tmp_path: Path, small_disk: Path) -> None:
    with running(tmp_path, server.address, temp=small_disk) as gateway:
        large = gateway.put(bytes(3_000_000))
        assert (large.status_code, large.json()["error"]["code"]) == (429, "overloaded")
        assert large.headers["retry-after"] == "1"
        assert gateway.put(bytes(50_000)).status_code == 200


def test_connections_beyond_its_own_are_not_the_end(server: Behind, tmp_path: Path) -> None:
    with running(tmp_path, server.address, max_connections=64, client_timeout_s=2) as gateway, ExitStack() as stack:
        for _ in range(150):
            stack.enter_context(gateway.connect())
        stack.close()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if gateway.put(b"image").status_code == 200:
                    return
            except requests.ConnectionError:
                time.sleep(0.2)
        pytest.fail(f"it answers nobody any more:\n{gateway.log.read_text()}")


def test_what_was_accepted_before_sigquit_is_answered(tmp_path: Path) -> None:
    arrived, leave = threading.Event(), threading.Event()

    def waits(_: Seen) -> Reply:
        arrived.set()
        assert leave.wait(60)
        return Reply()

    with behind(waits) as server, running(tmp_path, server.address) as gateway, ThreadPoolExecutor(1) as pool:
        with gateway.connect() as uploading:
            in_flight = pool.submit(gateway.put, b"image")
            uploading.sendall(HALF_A_BODY)
            assert arrived.wait(60)
            gateway.process.send_signal(signal.SIGQUIT)
            wait_until_refused(gateway)
            leave.set()
            uploading.sendall(b"x" * 996)
            assert read_all(uploading).startswith(b"HTTP/1.1 200 OK\r\n")
        assert in_flight.result(timeout=60).status_code == 200
        assert gateway.process.wait(timeout=STOP_TIMEOUT_S) == 0
    assert len(server.seen) == 2


def wait_until_refused(gateway: Gateway) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            gateway.connect().close()
        except ConnectionRefusedError:
            return
        time.sleep(0.05)
    pytest.fail("the gateway still takes connections")


def test_whoever_holds_a_connection_open_does_not_hold_up_the_end(tmp_path: Path) -> None:
    options = {"drain_timeout_s": 2, "client_timeout_s": 300}
    with (
        behind(plain) as server,
        running(tmp_path, server.address, **options) as gateway,
        gateway.connect() as uploading,
    ):
        uploading.sendall(HALF_A_BODY)
        time.sleep(0.5)
        gateway.process.send_signal(signal.SIGQUIT)
        assert gateway.process.wait(timeout=STOP_TIMEOUT_S) == 0
    lines = [json.loads(line) for line in gateway.log.read_text().splitlines() if line.startswith("{")]
    assert [line["method"] for line in lines] == ["GET", "PUT"]
