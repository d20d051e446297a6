"""TorchServe's API: its worker processes, its management API, and predictions as probes."""

import contextlib
import http.client
import json
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil

from launcher.settings import HOST, Settings

# A worker's process id follows (handlers/image_handler.py).
ACTIVITY_FILE = "visionserve-worker-"
# The name and version of its model follow.
REFUSAL_FILE = "visionserve-refusal-"
_LONGEST_REFUSAL = 600
_TIMEOUT_S = 2.0


class NoAnswer(Exception):
    """TorchServe did not answer, or not with a prediction."""


class Refused(NoAnswer):
    """TorchServe answered with an error: "status 503" and what its body says."""


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
    """A running TorchServe whose workers write to ``folder``; ``secret`` marks the launcher's probes.

    ``images`` are encoded ones to probe with, by model, such as "birds/1.0".
    """

    def __init__(self, settings: Settings, folder: Path, secret: str, images: Mapping[str, bytes]) -> None:
        self._settings = settings
        self._folder = folder
        # No x-top-k: more labels than a model has are refused.
        self._headers = {"x-visionserve-probe": secret, "Content-Type": "application/octet-stream"}
        self._images = images
        self._processes: dict[int, psutil.Process] = {}

    def alive(self, pids: Collection[int]) -> set[int]:
        """Return those of these workers that run."""
        for pid in set(pids) - self._processes.keys():
            with contextlib.suppress(psutil.Error):
                self._processes[pid] = psutil.Process(pid)
        self._processes = {pid: process for pid, process in self._processes.items() if _runs(process)}
        return {pid for pid in pids if pid in self._processes}

    def idle_s(self, pids: Collection[int]) -> dict[int, float]:
        """Return how many seconds ago each worker answered anything; the handler touches a file when it does."""
        now, seconds = time.time(), {}
        for pid in pids:
            with contextlib.suppress(OSError):
                seconds[pid] = max(0.0, now - (self._folder / f"{ACTIVITY_FILE}{pid}").stat().st_mtime)
        return seconds

    def refusal(self, name: str, version: str) -> str:
        """Return why a worker found that its model can never be served here, in one line; empty as long as none has."""
        with contextlib.suppress(OSError):
            return (self._folder / f"{REFUSAL_FILE}{name}-{version}").read_text(encoding="utf-8")[:_LONGEST_REFUSAL]
        return ""

    def describe(self, model: str) -> ModelDescription | None:
        """Ask the management API about a model, such as "birds/1.0"; None while it does not answer."""
        try:
            content = json.loads(self._request("management_port", f"/models/{quote(model)}", _TIMEOUT_S))[0]
            pids = frozenset(int(worker["pid"]) for worker in content["workers"] if int(worker["pid"]) > 0)
            return ModelDescription(int(content["minWorkers"]), pids)
        except (NoAnswer, ValueError, KeyError, IndexError, TypeError):
            return None

    def predict(self, model: str, timeout_s: float) -> ProbeAnswer:
        """Send a model its image and return its answer; raises NoAnswer, or Refused for another status than 200."""
        connection = http.client.HTTPConnection(HOST, self._settings.ports["port"], timeout=timeout_s)
        try:
            with contextlib.closing(connection):
                # A worker does not begin a probe that is not waited for any longer.
                expiry = {"x-request-arrival": f"{time.time():.3f}", "x-request-timeout": f"{timeout_s:g}"}
                path = f"/predictions/{quote(model)}"
                connection.request("POST", path, self._images[model], self._headers | expiry)
                response = connection.getresponse()
                body = response.read()
            if response.status != http.client.OK:
                raise Refused(f"status {response.status}: {_message(body)}")
            pid = response.getheader("x-visionserve-worker")
            return ProbeAnswer(json.loads(body), int(pid) if pid else None)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NoAnswer(str(error)) from error

    def metrics(self, timeout_s: float) -> str:
        """Return TorchServe's own metrics; raises NoAnswer."""
        return self._request("metrics_port", "/metrics", timeout_s).decode("utf-8", "replace")

    def set_default(self, model: str) -> None:
        """Let a version, such as "birds/1.0", answer the requests that name none; raises NoAnswer."""
        self._request("management_port", f"/models/{quote(model)}/set-default", _TIMEOUT_S, "PUT")

    def _request(self, port: str, path: str, timeout_s: float, method: str = "GET") -> bytes:
        connection = http.client.HTTPConnection(HOST, self._settings.ports[port], timeout=timeout_s)
        try:
            with contextlib.closing(connection):
                connection.request(method, path)
                response = connection.getresponse()
                body = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(str(error)) from error
        if response.status != http.client.OK:
            raise NoAnswer(f"status {response.status}")
        return body


def _message(body: bytes) -> str:
    """Return what the body of an error says, ours or TorchServe's, in one line."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        content = json.loads(body)
        body = str(content["error"]["message"] if "error" in content else content["message"]).encode()
    return " ".join(body.decode("utf-8", "replace").split())[:_LONGEST_REFUSAL]


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
