"""The latency of a good client while others attack, against its latency before, in the same test."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tests.e2e.conftest import E2E, Service
from tests.e2e.gateway.gateways import NEEDS_NGINX, Gateway, read_all, running
from tests.unit.visionserve.formats import costly_images

pytestmark = [*E2E, NEEDS_NGINX]

REQUESTS = 40
# A machine that is busy with other things; an attack that had to be waited for would take ten seconds and more.
FACTOR, FLOOR_S = 5, 3.0
# Some other client's, which has places and uploads of its own.
ATTACKER = "127.0.0.2"
PATH = "PUT /predictions/flowers HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
FIELD = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
Attack = Callable[[Gateway, threading.Event], None]


@pytest.fixture(scope="module")
def gateway(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("gateway"), f"127.0.0.1:{service.ports['port']}") as running_gateway:
        yield running_gateway


def p99_s(gateway: Gateway, photograph: bytes) -> float:
    """Return the 99th percentile of the seconds that answers take, one after the other; all of them must be answers."""
    seconds = []
    for _ in range(REQUESTS):
        began = time.monotonic()
        assert gateway.put(photograph).status_code == 200
        seconds.append(time.monotonic() - began)
    return float(np.percentile(seconds, 99))


def send(gateway: Gateway, body: bytes, headers: str = "") -> None:
    """Send a request from the attacker's address, and read what comes; refused ones are ended at any time."""
    with contextlib.suppress(OSError), gateway.connect(60, ATTACKER) as connection:
        connection.sendall(f"{PATH}{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        read_all(connection)


def again_and_again(body: Callable[[], bytes], headers: str = "", clients: int = 4) -> Attack:
    """Return an attack of some clients that send a body as often as they can."""
    content = body()

    def attack(gateway: Gateway, stop: threading.Event) -> None:
        def client() -> None:
            while not stop.is_set():
                send(gateway, content, headers)

        threads = [threading.Thread(target=client) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return attack


def slowly(start: bytes) -> Attack:
    """Return an attack of 250 clients that go on by a byte a second."""

    def attack(gateway: Gateway, stop: threading.Event) -> None:
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(gateway.connect(60, ATTACKER)) for _ in range(250)]
            for connection in connections:
                connection.sendall(start)
            while not stop.wait(1):
                for connection in connections:
                    with contextlib.suppress(OSError):
                        connection.send(b"x")

    return attack


def leave(gateway: Gateway, stop: threading.Event) -> None:
    """Send whole images and wait for no answer, 50 a second."""
    image = costly_images.bmp(64, 64, b"\x40\x01" * 64)
    while not stop.wait(0.02):
        with contextlib.suppress(OSError), gateway.connect(60, ATTACKER) as connection:
            connection.sendall(f"{PATH}Content-Length: {len(image)}\r\n\r\n".encode() + image)


ATTACKS: dict[str, Callable[[], Attack]] = {
    "slow bodies": lambda: slowly(f"{PATH}Content-Length: 50000\r\n\r\n".encode()),
    "slow headers": lambda: slowly(f"{PATH}X-Slow: ".encode()),
    "uploads of 16 MiB": lambda: again_and_again(lambda: bytes((16 << 20) - 4096)),
    "clients that leave": lambda: leave,
    "forms of many fields": lambda: again_and_again(
        lambda: FIELD * 150_000 + b"--x--\r\n", "Content-Type: multipart/form-data; boundary=x\r\n"
    ),
    "images that expand": lambda: again_and_again(lambda: costly_images.bmp(7000, 7000, b"\xff\x01" * 500)),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_does_not_slow_a_good_client_down(gateway: Gateway, photograph: bytes, name: str) -> None:
    calm_s = p99_s(gateway, photograph)
    stop = threading.Event()
    attacker = threading.Thread(target=ATTACKS[name](), args=(gateway, stop))
    attacker.start()
    try:
        time.sleep(0.5)  # until it has begun
        attacked_s = p99_s(gateway, photograph)
        assert attacker.is_alive()
    finally:
        stop.set()
        attacker.join()
    assert attacked_s < FACTOR * calm_s + FLOOR_S, f"p99 {calm_s:.3f} s before and {attacked_s:.3f} s under {name}"
