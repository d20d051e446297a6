import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from launcher import tcp_info
from launcher.archive import Archive
from launcher.drain import Drain
from launcher.workers import WorkerMonitor
from tests.unit.launcher.test_workers import FakeServer

ROOT = Path(__file__).parents[3]
ROSES = Archive("roses", "1.0", "0" * 64, {})


class Clock:
    """Seconds since the drain began; nothing takes no time at all."""

    def __init__(self) -> None:
        self.now = -1.0

    def __call__(self) -> float:
        self.now += 1e-6
        return self.now


class Scene:
    """A drain whose time passes when it sleeps; ``script`` says at which second what happens."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.server = FakeServer()
        self.server.pids, self.server.loaded = [1, 2], [1, 2]
        self.monitor = WorkerMonitor(self.server, [ROSES], self.clock)
        self.monitor.tick()
        self._ask_all()
        self.workers_hang_until = 0.0
        self.clients_wait_until = 0.0
        self.interrupted_at = 1e9
        self.known = True
        self.clock.now = 0.0

    def drain(self, delay_s: float = 0.0, timeout_s: float = 30.0) -> str:
        return Drain(self.monitor, [80], self._sleep, self.clock, self._busy).wait(delay_s, timeout_s)

    def _sleep(self, seconds: float) -> bool:
        self.clock.now += seconds
        if self.clock.now >= self.workers_hang_until:
            self._ask_all()
        return self.clock.now >= self.interrupted_at

    def _busy(self, ports: Collection[int], since_s: float) -> bool:
        assert list(ports) == [80]
        if not self.known:
            raise OSError("not here")
        return self.clock.now - since_s < self.clients_wait_until

    def _ask_all(self) -> None:
        for _ in self.server.pids:
            self.monitor.probe_once(self.monitor.models["roses/1.0"])


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_an_idle_service_stops_in_less_than_a_second(scene: Scene) -> None:
    assert scene.drain() == "idle"
    assert scene.clock.now < 1
    assert scene.monitor.not_ready_reason() == "draining"


def test_the_delay_is_waited_for_whatever_happens(scene: Scene) -> None:
    assert scene.drain(delay_s=5) == "idle"
    assert 5 <= scene.clock.now < 6


def test_a_drain_that_was_asked_for_earlier_has_used_up_its_delay(scene: Scene) -> None:
    scene.monitor.begin_drain()
    scene.clock.now += 10
    assert scene.drain(delay_s=5) == "idle"
    assert scene.clock.now < 11


def test_a_stop_long_after_a_requested_drain_still_waits_for_what_is_in_flight(scene: Scene) -> None:
    scene.monitor.begin_drain()
    scene.clock.now += 100
    scene.workers_hang_until = scene.clock.now + 10
    assert scene.drain(timeout_s=30) == "idle"
    assert 110 <= scene.clock.now < 112


def test_a_worker_that_is_busy_is_waited_for(scene: Scene) -> None:
    scene.workers_hang_until = 7
    assert scene.drain() == "idle"
    assert 7 <= scene.clock.now < 8


def test_a_client_that_is_sending_is_waited_for(scene: Scene) -> None:
    scene.clients_wait_until = 9
    assert scene.drain() == "idle"
    assert 9 <= scene.clock.now < 10


def test_what_never_ends_is_cut_off_at_the_end_of_the_time(scene: Scene) -> None:
    scene.workers_hang_until = 100
    assert scene.drain(timeout_s=12) == "timed out"
    assert 12 <= scene.clock.now < 13


def test_somebody_who_does_not_want_to_wait_does_not(scene: Scene) -> None:
    scene.interrupted_at = 2
    assert scene.drain(delay_s=60) == "interrupted"
    assert scene.clock.now < 3


def test_where_the_kernel_does_not_tell_the_workers_decide(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.known, scene.workers_hang_until = False, 3
    assert scene.drain() == "idle"
    assert scene.clock.now >= 3
    assert "The kernel does not report" in capsys.readouterr().err


@contextlib.contextmanager
def conversation(family: socket.AddressFamily) -> Iterator[tuple[int, socket.socket, socket.socket]]:
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with (
        socket.create_server((host, 0), family=family) as listener,
        socket.create_connection((host, listener.getsockname()[1])) as client,
        listener.accept()[0] as server,
    ):
        yield listener.getsockname()[1], client, server


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def test_a_client_is_busy_while_it_sends_and_until_it_has_its_answer(family: socket.AddressFamily) -> None:
    with conversation(family) as (port, client, server):
        time.sleep(0.3)
        assert not tcp_info.busy([port], 0.1)
        client.sendall(b"a question")
        assert tcp_info.busy([port], 0.1)
        time.sleep(0.3)
        assert not tcp_info.busy([port], 0.1)
        assert tcp_info.busy([port], 60)
        server.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                server.send(bytes(1 << 20))
        time.sleep(0.3)
        assert tcp_info.busy([port], 0.1)


def test_other_ports_and_closed_connections_are_nobodys_business() -> None:
    with conversation(socket.AF_INET) as (port, client, _):
        assert [connection.client_port for connection in tcp_info.established(port)] == [client.getsockname()[1]]
        assert tcp_info.established(client.getsockname()[1])[0].client_port == port
        client.close()
        assert tcp_info.established(port) == []


# Signals and orphans concern a whole process, so each of these has one of its own.
SIGNALS = """
import os, signal, sys, threading, time
from launcher import signals
with signals.receive() as queue:
    assert not queue.wait(0)
    stop = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    for number in (*stop, signal.SIGCHLD):
        threading.Timer(0.1, os.kill, (os.getpid(), number)).start()
        started = time.monotonic()
        assert queue.wait(20) is (number in stop)
        assert time.monotonic() - started < 10
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""
ORPHANS = """
import os, subprocess, sys, time
from launcher import signals
child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
orphan = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-c", ""])
deadline = time.monotonic() + 20
reaped = False
while time.monotonic() < deadline and not (reaped and child.returncode is not None):
    signals.reap_orphans(child)
    try:
        os.waitid(os.P_PID, orphan, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        reaped = True
    time.sleep(0.02)
assert (child.returncode, reaped) == (7, True)
"""


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(SIGNALS, id="a signal ends the wait and says whether it asks to stop"),
        pytest.param(ORPHANS, id="orphans are reaped and the child's exit code is kept"),
    ],
)
def test_signals_and_orphans_are_for_the_main_process(script: str) -> None:
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
