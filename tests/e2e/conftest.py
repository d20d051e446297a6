"""A real TorchServe on free ports with the real archive, started as a user starts it."""

import contextlib
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import requests
from PIL import Image

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "model_store" / "flowers"
VERSION = json.loads((BUNDLE / "card.json").read_text(encoding="utf-8"))["version"]
PORTS = ("port", "management_port", "metrics_port", "grpc_port", "grpc_management_port", "status_port", "access_port")
# Generous: a worker loads within ten seconds, unless its cores are busy with something else.
START_TIMEOUT_S = 400
STOP_TIMEOUT_S = 60
E2E = [pytest.mark.e2e, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Service:
    """A running service: its process, its ports by option, and where it logs."""

    process: subprocess.Popen[bytes]
    ports: dict[str, int]
    log: Path

    def url(self, path: str, port: str = "port") -> str:
        return f"http://127.0.0.1:{self.ports[port]}/{path}"

    def put(self, body: bytes, path: str = "predictions/flowers", **headers: str) -> requests.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.put(self.url(path), data=body, headers=named, timeout=60)

    def post_json(self, content: Any, path: str = "predictions/flowers", **headers: str) -> requests.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.post(self.url(path), json=content, headers=named, timeout=60)

    def workers(self) -> list[dict[str, Any]]:
        described = requests.get(self.url("models/flowers", "management_port"), timeout=30).json()
        found: list[dict[str, Any]] = described[0]["workers"]
        return found


def free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on, held together so that they differ.

    Below those that the system gives to whoever asks for any, so that no connection takes one before it is used.
    """
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    candidates = random.SystemRandom().sample(range(first // 2, first), first // 4)
    with contextlib.ExitStack() as held:
        free: list[int] = []
        while len(free) < count:
            with contextlib.suppress(OSError):
                held.enter_context(socket.create_server(("127.0.0.1", candidates[-1])))
                free.append(candidates[-1])
            candidates.pop()
        return free


def start(model_store: Path, log: Path, **environment: str) -> Service:
    """Start a service and wait until it says that it serves."""
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    options = [f"--{option.replace('_', '-')}={port}" for option, port in ports.items()]
    command = [sys.executable, "-m", "launcher", "serve", f"--model-store={model_store}", *options]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT, env={**os.environ, **environment}
        )
    service = Service(process, ports, log)
    deadline = time.monotonic() + START_TIMEOUT_S
    while "Serving at" not in log.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            stop(service)
            pytest.fail(f"the service did not start:\n{log.read_text()}")
        time.sleep(0.2)
    return service


def runs(process: psutil.Process) -> bool:
    """Whether a process is more than a zombie, which only waits for whoever inherited it."""
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def stop(service: Service) -> int:
    """Stop a service as an operator does and return its exit code."""
    service.process.send_signal(signal.SIGTERM)
    return service.process.wait(timeout=STOP_TIMEOUT_S)


@pytest.fixture(scope="session")
def model_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the archive of the shipped bundle, packaged now."""
    folder = tmp_path_factory.mktemp("store")
    command = [sys.executable, "-m", "training", "package", "--profile=cpu"]
    options = [f"--bundle={BUNDLE}", f"--output={folder / 'flowers.mar'}"]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def service(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    running = start(model_store, tmp_path_factory.mktemp("log") / "service.log")
    yield running
    assert stop(running) == 0


@pytest.fixture(scope="session")
def photographs() -> list[bytes]:
    """Twelve JPEGs of different sizes and content, drawn here."""
    generator = np.random.default_rng(7)
    return [jpeg(generator, 180 + 37 * place, 240 + 23 * place) for place in range(12)]


@pytest.fixture(scope="session")
def photograph(photographs: list[bytes]) -> bytes:
    return photographs[0]


def jpeg(generator: np.random.Generator, height: int, width: int) -> bytes:
    coarse = generator.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return encode(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), "JPEG")


def encode(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()
