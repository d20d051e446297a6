"""What was accepted before a stop is answered; a client that only keeps its connection open holds nothing up."""

import contextlib
import http.client
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.e2e.conftest import E2E, STOP_TIMEOUT_S, Service, start

pytestmark = E2E

SENDERS = 8
# Past the notice of whoever sends, well before the end of what a drain may take.
DELAY_S, TIMEOUT_S = 2, 120


@contextlib.contextmanager
def serving(model_store: Path, folder: Path, **environment: str) -> Iterator[Service]:
    service = start(model_store, folder / "service.log", **environment)
    try:
        yield service
    finally:
        service.process.kill() if service.process.poll() is None else None


def ready(service: Service) -> bool:
    return requests.get(service.url("readyz", "status_port"), timeout=30).status_code == 200


class Senders:
    """Clients that send until they learn that the service drains, as a load balancer does, on connections they keep."""

    def __init__(self, service: Service, photograph: bytes) -> None:
        self.fates: Counter[str] = Counter()
        self._service, self._photograph = service, photograph
        self._told = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(SENDERS)]
        for thread in self._threads:
            thread.start()

    def tell(self) -> None:
        self._told.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        with requests.Session() as session:
            while not self._told.is_set():
                try:
                    url = self._service.url("predictions/flowers")
                    fate = str(session.post(url, self._photograph, timeout=60).status_code)
                except requests.RequestException as error:
                    fate = type(error).__name__
                self.fates[fate] += 1


def test_a_stop_under_load_answers_everything_that_was_accepted(
    model_store: Path, tmp_path: Path, photograph: bytes
) -> None:
    settings = {"VISIONSERVE_DRAIN_DELAY": str(DELAY_S), "VISIONSERVE_DRAIN_TIMEOUT": str(TIMEOUT_S)}
    with serving(model_store, tmp_path, **settings) as service:
        idle = http.client.HTTPConnection("127.0.0.1", service.ports["port"])
        idle.request("GET", "/ping")
        idle.getresponse().read()
        slow = socket.create_connection(("127.0.0.1", service.ports["port"]))
        head = f"PUT /predictions/flowers HTTP/1.1\r\nHost: x\r\nContent-Length: {len(photograph)}\r\n\r\n"
        slow.sendall(head.encode() + photograph[:1000])
        senders = Senders(service, photograph)
        time.sleep(1)
        asked = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        while ready(service):
            assert time.monotonic() < asked + DELAY_S
        trickle = threading.Thread(target=_trickle, args=(slow, photograph[1000:], DELAY_S + 2))
        trickle.start()
        time.sleep(DELAY_S / 2)
        senders.tell()
        trickle.join()
        assert slow.recv(1 << 16).startswith(b"HTTP/1.1 200")
        assert service.process.wait(timeout=STOP_TIMEOUT_S) == 0
    assert set(senders.fates) == {"200"}
    assert senders.fates["200"] > SENDERS
    assert time.monotonic() - asked < TIMEOUT_S / 2
    idle.close()
    slow.close()


def _trickle(connection: socket.socket, rest: bytes, seconds: float) -> None:
    steps = int(seconds / 0.1)
    size = -(-len(rest) // steps)
    for place in range(steps):
        connection.sendall(rest[place * size : (place + 1) * size])
        time.sleep(0.1)


def test_drain_is_not_ready_but_serves_until_a_second_signal_stops_it_at_once(
    model_store: Path, tmp_path: Path, photograph: bytes
) -> None:
    with serving(model_store, tmp_path, VISIONSERVE_DRAIN_DELAY="300") as service:
        answer = requests.post(service.url("drain", "status_port"), timeout=30)
        assert answer.status_code == 202
        assert not ready(service)
        assert service.put(photograph).status_code == 200
        assert requests.get(service.url("livez", "status_port"), timeout=30).status_code == 200
        (model,) = requests.get(service.url("models", "status_port"), timeout=30).json()["models"]
        assert model["status"] == "draining"
        service.process.send_signal(signal.SIGINT)
        with pytest.raises(Exception, match="timed out"):
            service.process.wait(timeout=2)
        assert service.put(photograph).status_code == 200
        service.process.send_signal(signal.SIGINT)
        assert service.process.wait(timeout=STOP_TIMEOUT_S) == 0
    assert "Stopped at once." in service.log.read_text()
