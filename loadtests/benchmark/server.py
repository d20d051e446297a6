"""A server as a child process: start it, wait for its first answer, measure all its processes, stop it completely."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from loadtests.load.http_client import Target
from loadtests.results.validation import top_label

_START_S = 180
_STOP_S = 20
_RETRY_S = 0.02
_LOG_TAIL = 2000


class ServerError(Exception):
    """A server did not start or did not answer; the message holds the end of its log."""


@dataclass(frozen=True)
class Launch:
    """How to start a server: command line, additions to the environment, working folder, and the URL to ask."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    url: str
    status_url: str = ""


class Server:
    """A running server and all of its processes."""

    def __init__(self, child: subprocess.Popen[bytes], target: Target, log: Path) -> None:
        self.target = target
        self.started = time.monotonic()
        self._child = child
        self._log = log
        self._root = psutil.Process(child.pid)

    def first_answer(self, image: bytes) -> float:
        """Send a image until it is answered; return the seconds since the start.

        Raises:
            ServerError: it ended, or there was no answer in three minutes.
        """
        while time.monotonic() - self.started < _START_S:
            if self._child.poll() is not None:
                raise ServerError(f"it ended with code {self._child.returncode}:\n{self.log_tail()}")
            if self._answers(image):
                return time.monotonic() - self.started
            time.sleep(_RETRY_S)
        raise ServerError(f"no answer in {_START_S} s:\n{self.log_tail()}")

    def cpu_s(self) -> float:
        """Return the CPU seconds, user and system, that its processes have used so far."""
        total = 0.0
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def memory_mb(self) -> float:
        """Return the memory of all its processes; what they share counts once (PSS)."""
        total = 0
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_full_info().pss
        return total / 1e6

    def processes(self) -> list[psutil.Process]:
        """Return the server's process and everything below it."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return [self._root, *self._root.children(recursive=True)]
        return []

    def log_tail(self) -> str:
        """Return the end of its log."""
        return self._log.read_text("utf-8", "replace")[-_LOG_TAIL:]

    def _answers(self, image: bytes) -> bool:
        # A request may wait in the server's queue while it loads: that wait is part of the start.
        connection = http.client.HTTPConnection(self.target.host, self.target.port, timeout=_START_S)
        try:
            connection.request("POST", self.target.path, image, {"Content-Type": "application/octet-stream"})
            response = connection.getresponse()
            return response.status == 200 and top_label(response.read()) is not None
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


@contextmanager
def running(launch: Launch, log: Path) -> Iterator[Server]:
    """Run a server; on leaving, however that happens, it and all its processes are gone."""
    with log.open("wb") as stream:
        child = subprocess.Popen(
            launch.command,
            env={**os.environ, **launch.environment},
            cwd=launch.folder,
            stdout=stream,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    server = Server(child, Target.parse(launch.url), log)
    try:
        yield server
    finally:
        _stop(child, server.processes())


def free_ports(count: int) -> list[int]:
    """Return different ports of this machine that nothing listens on."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def free_port() -> int:
    """Return one such port."""
    return free_ports(1)[0]


def _stop(child: subprocess.Popen[bytes], processes: list[psutil.Process]) -> None:
    """Ask the child to end; kill what is left of its processes."""
    child.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(_STOP_S)
    _, alive = psutil.wait_procs([process for process in processes if process.pid != child.pid], timeout=1)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    child.kill()
    child.wait()
