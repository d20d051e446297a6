"""Hostile and unlucky clients at the gateway: good clients are answered meanwhile, and every limit comes back."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import requests

from tests.e2e.conftest import free_ports, runs
from tests.e2e.gateway.gateways import NEEDS_NGINX, Behind, Gateway, Reply, Seen, behind, read_all, running

pytestmark = [pytest.mark.e2e, NEEDS_NGINX]

# A good client's latency under attack; the machine may be busy, a client that waits for the attacker would take longer.
PATIENCE_S = 10
LARGE = bytes(1_500_000)


def unhurried(_: Seen) -> Reply:
    time.sleep(0.1)
    return Reply()


@pytest.fixture
def server() -> Iterator[Behind]:
    with behind(unhurried) as running_server:
        yield running_server


class Busy:
    """A server that answers when it is let go."""

    def __init__(self) -> None:
        self.leave = threading.Event()

    def __call__(self, _: Seen) -> Reply:
        assert self.leave.wait(60)
        return Reply()


@pytest.fixture
def busy() -> Iterator[tuple[Behind, Busy]]:
    answer = Busy()
    with behind(answer) as running_server:
        yield running_server, answer
        answer.leave.set()


def until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def nginx_workers(gateway: Gateway) -> list[psutil.Process]:
    (master,) = [child for child in psutil.Process(gateway.process.pid).children() if "nginx" in child.name()]
    return master.children()


def put_from(gateway: Gateway, address: str, body: bytes = b"image") -> bytes:
    """Send a request from an address of this machine and return the response."""
    with socket.create_connection(("127.0.0.1", gateway.port), 60, (address, 0)) as connection:
        head = (
            f"PUT /predictions/flowers HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        connection.sendall(head.encode() + body)
        return read_all(connection)


def status_of(response: bytes) -> int:
    return int(response.split(b" ", 2)[1])


# ---- places


def test_a_killed_nginx_worker_takes_no_place_with_it(busy: tuple[Behind, Busy], tmp_path: Path) -> None:
    server, answer = busy
    with running(tmp_path, server.address, concurrency=4, uploads_per_client=8) as gateway:
        with ThreadPoolExecutor(4) as pool:
            for killed in (2, 4):
                sent = [pool.submit(put_from, gateway, "127.0.0.1") for _ in range(2)]
                until(lambda killed=killed: server.now == killed)  # type: ignore[misc]
                os.kill(nginx_workers(gateway)[0].pid, signal.SIGKILL)
                assert [future.result() for future in sent] == [b"", b""]
        answer.leave.set()
        until(lambda: server.now == 0)
        assert [gateway.put(b"image").status_code for _ in range(10)] == [200] * 10


def test_one_client_holds_half_of_the_places_and_others_are_answered(busy: tuple[Behind, Busy], tmp_path: Path) -> None:
    server, answer = busy
    with running(tmp_path, server.address, concurrency=8) as gateway, ThreadPoolExecutor(20) as pool:
        sent = [pool.submit(put_from, gateway, "127.0.0.2") for _ in range(12)]
        until(lambda: sum(future.done() for future in sent) == 8)
        assert server.now == 4
        other = pool.submit(put_from, gateway, "127.0.0.3")
        until(lambda: server.now == 5)
        answer.leave.set()
        assert status_of(other.result()) == 200
        assert Counter(status_of(future.result()) for future in sent) == {200: 4, 429: 8}


def test_a_client_that_leaves_holds_its_place_until_the_server_has_answered(
    busy: tuple[Behind, Busy], tmp_path: Path
) -> None:
    server, answer = busy
    with running(tmp_path, server.address, concurrency=4, per_client=4) as gateway:
        for _ in range(12):
            with gateway.connect() as connection:
                connection.sendall(b"PUT /predictions/flowers HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nimage")
                time.sleep(0.05)
        until(lambda: server.now == 4)
        assert gateway.put(b"image").status_code == 429
        assert server.most_at_once == 4
        answer.leave.set()
        until(lambda: server.now == 0)
        assert [gateway.put(b"image").status_code for _ in range(5)] == [200] * 5


def test_large_bodies_have_few_places_and_leave_the_others_to_small_ones(
    busy: tuple[Behind, Busy], tmp_path: Path
) -> None:
    server, answer = busy
    options = {"concurrency": 8, "large_concurrency": 2, "per_client": 8}
    with running(tmp_path, server.address, **options) as gateway, ThreadPoolExecutor(16) as pool:
        large = [pool.submit(gateway.put, LARGE) for _ in range(6)]
        until(lambda: sum(future.done() for future in large) == 4)
        chunked = requests.put(gateway.url("predictions/flowers"), data=iter([LARGE]), timeout=60)
        assert chunked.status_code == 429
        small = [pool.submit(gateway.put, b"image") for _ in range(4)]
        until(lambda: server.now == 6)
        answer.leave.set()
        assert Counter(future.result().status_code for future in large) == {200: 2, 429: 4}
        assert [future.result().status_code for future in small] == [200] * 4
    refused = next(future.result() for future in large if future.result().status_code == 429)
    assert (refused.json()["error"]["code"], refused.headers["retry-after"]) == ("overloaded", "1")


# ---- uploads


def slowly(gateway: Gateway, stack: ExitStack, count: int, length: int, stop: threading.Event) -> None:
    """Open connections that announce a body and send a byte of it each second."""
    connections = [stack.enter_context(gateway.connect()) for _ in range(count)]
    head = f"PUT /predictions/flowers HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()
    for connection in connections:
        connection.sendall(head)

    def trickle() -> None:
        while not stop.wait(1):
            for connection in connections:
                with suppress(OSError):
                    connection.send(b"x")

    thread = threading.Thread(target=trickle)
    thread.start()
    stack.callback(thread.join)
    stack.callback(stop.set)


def test_bodies_of_a_byte_a_second_keep_no_good_client_of_the_same_address_waiting(
    server: Behind, tmp_path: Path
) -> None:
    stop = threading.Event()
    with running(tmp_path, server.address, concurrency=4, client_timeout_s=5) as gateway, ExitStack() as stack:
        slowly(gateway, stack, 250, 50_000, stop)
        slowly(gateway, stack, 240, 900_000, stop)
        slowly(gateway, stack, 6, 16_000_000, stop)
        took = []
        for body in [b"image", bytes(200_000), LARGE] * 5:
            began = time.monotonic()
            assert gateway.put(body).status_code == 200
            took.append(time.monotonic() - began)
        assert max(took) < PATIENCE_S
        assert len(server.seen) == 15


def test_a_body_has_a_total_time_and_nothing_else_is_cut(tmp_path: Path) -> None:
    def late(seen: Seen) -> Reply:
        time.sleep(12 if seen.body == b"late" else 0)
        return Reply()

    with (
        behind(late) as server,
        running(tmp_path, server.address, upload_timeout_s=6, client_timeout_s=2) as gateway,
        ExitStack() as stack,
        ThreadPoolExecutor(1) as pool,
    ):
        slow = stack.enter_context(gateway.connect(60))
        session = stack.enter_context(requests.Session())
        slowly(gateway, stack, 100, 900_000, threading.Event())
        slow.sendall(b"PUT /predictions/flowers HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n")
        waiting = pool.submit(gateway.put, b"late")
        deadline = time.monotonic() + 40
        while time.monotonic() < deadline:
            assert session.get(gateway.url(""), timeout=PATIENCE_S).status_code == 200
            with suppress(OSError):
                slow.sendall(b"x")
            if "uploads took over 6 s and were ended" in gateway.log.read_text():
                break
            time.sleep(0.5)
        else:
            pytest.fail(f"a body of two bytes a second is still being received:\n{gateway.log.read_text()}")
        assert waiting.result().status_code == 200


@contextmanager
def small_disk(mebibytes: int) -> Iterator[Path]:
    folder = Path(f"/tmp/gateway-bodies-{os.getpid()}")
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=1777", "tmpfs", str(folder)]
    try:
        if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            pytest.skip("a small disk cannot be mounted here: run the tests as root, with CAP_SYS_ADMIN")
        yield folder
        subprocess.run(["umount", str(folder)], check=True)
    finally:
        folder.rmdir()


def test_uploads_that_stop_short_fill_no_more_than_their_folder(server: Behind, tmp_path: Path) -> None:
    with (
        small_disk(32) as folder,
        running(tmp_path, server.address, temp=folder, uploads_per_client=4096, client_timeout_s=6) as gateway,
        ExitStack() as stack,
    ):
        (worker,) = nginx_workers(gateway)
        before = worker.memory_info().rss
        for _ in range(40):
            connection = stack.enter_context(gateway.connect())
            connection.setblocking(False)
            connection.settimeout(5)
            head = b"PUT /predictions/flowers HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n"
            with suppress(OSError):  # refused meanwhile
                connection.sendall(head + bytes(2_900_000))
        answers = [gateway.put(bytes(300_000)) for _ in range(3)]
        assert {answer.status_code for answer in answers} <= {200, 429}
        assert all(answer.headers.get("retry-after") == "1" for answer in answers if answer.status_code == 429)
        assert [gateway.put(bytes(50_000)).status_code for _ in range(5)] == [200] * 5
        assert worker.memory_info().rss - before < 64e6
        until(lambda: gateway.put(bytes(2_000_000)).status_code == 200, 60)


# ---- the process


def test_a_closed_terminal_ends_it(server: Behind, tmp_path: Path) -> None:
    with running(tmp_path, server.address) as gateway:
        processes = [*nginx_workers(gateway), *psutil.Process(gateway.process.pid).children()]
        gateway.process.send_signal(signal.SIGHUP)
        assert gateway.process.wait(timeout=30) == 0
        psutil.wait_procs(processes, timeout=30)
        assert not any(map(runs, processes))


@pytest.mark.parametrize("whose", ["the gateway's", "nginx's master"])
def test_nothing_outlives_a_killed_process(server: Behind, tmp_path: Path, whose: str) -> None:
    with running(tmp_path, server.address) as gateway:
        (master,) = [child for child in psutil.Process(gateway.process.pid).children() if "nginx" in child.name()]
        processes = [master, *master.children()]
        os.kill(master.pid if whose == "nginx's master" else gateway.process.pid, signal.SIGKILL)
        gateway.process.wait(timeout=30)
        _, alive = psutil.wait_procs(processes, timeout=30)
        assert alive == []
        with pytest.raises(OSError):
            gateway.connect(5).close()


def test_a_log_that_nobody_reads_stops_no_request(server: Behind) -> None:
    port = free_ports(1)[0]
    command = ["-m", "gateway", "run", f"--port={port}", f"--inference={server.address}", "--records=off"]
    with subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path(__file__).parents[3]
    ) as process:
        try:
            url = f"http://127.0.0.1:{port}/"
            until(lambda: answers(url))
            session = requests.Session()
            # Each line of the log is over 4 KB: pipes and buffers together hold 1.2 MB.
            padding = "a" * 4000
            for _ in range(500):
                assert session.get(url, headers={"User-Agent": padding}, timeout=PATIENCE_S).status_code == 200
        finally:
            process.send_signal(signal.SIGTERM)
            output, messages = process.communicate(timeout=30)
    lines = output.splitlines()
    assert 0 < len(lines) < 500
    assert all(line.startswith(b"{") and line.endswith(b"}") for line in lines)
    assert b"Gateway at" in messages


def test_a_full_disk_under_its_log_stops_no_request(server: Behind) -> None:
    port = free_ports(1)[0]
    command = ["-m", "gateway", "run", f"--port={port}", f"--inference={server.address}", "--records=off"]
    with Path("/dev/full").open("w") as full:
        process = subprocess.Popen([sys.executable, *command], stdout=full, stderr=full, cwd=Path(__file__).parents[3])
    try:
        until(lambda: answers(f"http://127.0.0.1:{port}/"))
        url = f"http://127.0.0.1:{port}/predictions/flowers"
        assert [requests.put(url, data=b"image", timeout=PATIENCE_S).status_code for _ in range(5)] == [200] * 5
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code == 200
    except requests.RequestException:
        return False


def test_it_is_alive_when_both_of_its_stages_answer(tmp_path: Path) -> None:
    with running(tmp_path) as gateway:  # without a TorchServe
        assert gateway.get("gateway/livez").status_code == 200
        (worker,) = nginx_workers(gateway)
        worker.suspend()
        with pytest.raises(requests.Timeout):
            requests.get(gateway.url("gateway/livez"), timeout=2)
        worker.resume()
        assert gateway.get("gateway/livez").status_code == 200
