"""`serve --gateway` as a container platform runs it: one port, named in PORT, SIGTERM and ten seconds."""

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from tests.e2e.conftest import E2E, ROOT, START_TIMEOUT_S, free_ports, runs
from tests.e2e.gateway.gateways import NEEDS_NGINX

pytestmark = [*E2E, NEEDS_NGINX]
# What platforms wait for after SIGTERM, before SIGKILL.
GRACE_S = 10
HOST = "::1" if socket.has_dualstack_ipv6() else "127.0.0.1"
URL = f"http://[{HOST}]" if ":" in HOST else f"http://{HOST}"
# As in the Dockerfile's stage `standalone`.
VARIABLES = {"GATEWAY_DRAIN_TIMEOUT_S": "6", "VISIONSERVE_DRAIN_TIMEOUT": "7", "TS_DEFAULT_WORKERS_PER_MODEL": "1"}
Process = subprocess.Popen[bytes]


def launch(model_store: Path, log: Path, port: int, **variables: str) -> Process:
    command = [sys.executable, "-m", "launcher", "serve", "--gateway", f"--model-store={model_store}"]
    offset = free_ports(1)[0] - 8080  # so that the inner ports, too, are below those of connections
    own = {"PORT": str(port), "VISIONSERVE_PORT_OFFSET": str(offset), "TMPDIR": str(log.parent)}
    environment = {**os.environ, **VARIABLES, **own, **variables}
    with log.open("wb") as stream:
        return subprocess.Popen(command, cwd=ROOT, stdout=stream, stderr=stream, env=environment)


@pytest.fixture
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that nginx's workers can reach when root runs the tests, unlike tmp_path."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.fixture
def container(model_store: Path, folder: Path, port: int) -> Iterator[Process]:
    process = launch(model_store, folder / "log", port)
    yield process
    process.kill()
    process.wait()


def test_an_open_port_is_ready_and_what_it_took_is_answered_before_the_end(
    container: Process, folder: Path, port: int, photograph: bytes
) -> None:
    wait_for_port(container, port, folder / "log")
    assert requests.get(f"{URL}:{port}/readyz", timeout=30).status_code == 200
    family = psutil.Process(container.pid).children(recursive=True)
    sockets = [found for process in family for found in process.net_connections("inet")]
    listening = [found.laddr for found in sockets if found.status == psutil.CONN_LISTEN]
    assert {address.port for address in listening if not address.ip.endswith("127.0.0.1")} == {port}
    statuses: list[int] = []

    def upload() -> None:
        """Send an image of which the second half comes after the signal."""

        def parts() -> Iterator[bytes]:
            yield photograph[:1000]
            time.sleep(2)
            yield photograph[1000:]

        statuses.append(requests.put(f"{URL}:{port}/predictions/flowers", data=parts(), timeout=60).status_code)

    sender = threading.Thread(target=upload)
    sender.start()
    time.sleep(1)
    started = time.monotonic()
    container.terminate()
    assert container.wait(timeout=60) == 0, (folder / "log").read_text()
    assert time.monotonic() - started < GRACE_S
    sender.join()
    assert statuses == [200]
    assert not list(filter(runs, family))
    assert [path.name for path in folder.iterdir()] == ["log"]
    assert "Permission denied" not in (folder / "log").read_text()


def wait_for_port(process: Process, port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection((HOST, port), timeout=5).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"the port did not open:\n{log.read_text()}")


def test_a_port_that_is_taken_is_one_sentence_at_once(model_store: Path, tmp_path: Path) -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        assert launch(model_store, tmp_path / "log", port).wait(timeout=60) == 2
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert line.startswith(f"Port {port} is not free") and line.endswith("choose another with PORT.")


def test_an_option_that_the_gateway_refuses_ends_the_start(model_store: Path, tmp_path: Path, port: int) -> None:
    assert launch(model_store, tmp_path / "log", port, GATEWAY_UPLOADS="many").wait(timeout=120) == 2
    assert "GATEWAY_UPLOADS must be a whole number" in (tmp_path / "log").read_text()
