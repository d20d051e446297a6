"""TorchServe's API: its worker processes, its management API, and predictions as probes."""

import contextlib
import http.client
import json
from dataclasses import dataclass
from typing import Any

import psutil

from launcher.settings import HOST, Settings

# What TorchServe runs for each worker; its Java starts other programs too.
_WORKER_PROGRAM = "model_service_worker"
_TIMEOUT_S = 5.0
# A probe waits in TorchServe's queue until a worker has loaded.
_ANSWER_TIMEOUT_S = 120.0


class NoAnswer(Exception):
    """TorchServe did not answer, or not with a prediction."""


@dataclass(frozen=True)
class ModelDescription:
    """A model by the management API: how many workers it should have, and their process ids."""

    total: int
    pids: frozenset[int]


@dataclass(frozen=True)
class ProbeAnswer:
    """A prediction and the worker that made it; None when its archive is too old to name it."""

    content: dict[str, Any]
    pid: int | None


class TorchServe:
    """A running TorchServe. Its Java, ``java_pid``, starts the workers; ``secret`` marks the launcher's probes."""

    def __init__(self, settings: Settings, java_pid: int, secret: str, image: bytes) -> None:
        self._settings = settings
        self._java_pid = java_pid
        self._headers = {"x-visionserve-probe": secret, "x-top-k": "3", "Content-Type": "application/octet-stream"}
        self._image = image
        self._processes: dict[int, psutil.Process] = {}

    def workers(self, expected: int) -> set[int]:
        """Return the process ids of the workers that run.

        Looking through all processes is not cheap, so it is done only while fewer than ``expected`` are known yet.
        """
        self._processes = {pid: process for pid, process in self._processes.items() if _runs(process)}
        if len(self._processes) < max(expected, 1):
            self._processes |= {process.pid: process for process in self._find() if process.pid not in self._processes}
        return set(self._processes)

    def describe(self, model: str) -> ModelDescription | None:
        """Ask the management API about a model; None while it does not answer."""
        try:
            content = json.loads(self._get("management_port", f"/models/{model}", _TIMEOUT_S))[0]
            pids = frozenset(int(worker["pid"]) for worker in content["workers"])
            return ModelDescription(int(content["minWorkers"]), pids)
        except (NoAnswer, ValueError, KeyError, IndexError, TypeError):
            return None

    def predict(self, model: str) -> ProbeAnswer:
        """Send the image to a model and return its answer; raises NoAnswer."""
        connection = http.client.HTTPConnection(HOST, self._settings.ports["port"], timeout=_ANSWER_TIMEOUT_S)
        try:
            with contextlib.closing(connection):
                connection.request("POST", f"/predictions/{model}", self._image, self._headers)
                response = connection.getresponse()
                body = response.read()
            if response.status != http.client.OK:
                raise NoAnswer(f"status {response.status}")
            pid = response.getheader("x-visionserve-worker")
            return ProbeAnswer(json.loads(body), int(pid) if pid else None)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NoAnswer(str(error)) from error

    def metrics(self, timeout_s: float) -> str:
        """Return TorchServe's own metrics; raises NoAnswer."""
        return self._get("metrics_port", "/metrics", timeout_s).decode("utf-8", "replace")

    def _get(self, port: str, path: str, timeout_s: float) -> bytes:
        connection = http.client.HTTPConnection(HOST, self._settings.ports[port], timeout=timeout_s)
        try:
            with contextlib.closing(connection):
                connection.request("GET", path)
                response = connection.getresponse()
                body = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(str(error)) from error
        if response.status != http.client.OK:
            raise NoAnswer(f"status {response.status}")
        return body

    def _find(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            family = psutil.Process(self._java_pid).children(recursive=True)
            return [process for process in family if _is_worker(process)]
        return []


def _is_worker(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(_WORKER_PROGRAM in word for word in process.cmdline()) and _runs(process)
    return False


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
