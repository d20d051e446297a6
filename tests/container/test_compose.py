"""The stack of compose.yaml: the smoke test, a restart behind the gateway, keys, and an end under load."""

import json
import os
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.container.conftest import CONTAINER, ROOT, need
from tests.container.engine import READY_S, docker
from tests.e2e.conftest import free_ports

pytestmark = CONTAINER
GATEWAY = "nginxinc/nginx-unprivileged:1.28.0-bookworm"
PROJECT = f"visionserve-test-{os.getpid()}"


class Stack:
    """A compose project of its own, on a free port."""

    def __init__(self, image: str, **environment: str) -> None:
        self.port = free_ports(1)[0]
        self.environment = {"VISIONSERVE_IMAGE": image, "VISIONSERVE_PORT": str(self.port), **environment}

    def compose(self, *arguments: str) -> str:
        return docker("compose", f"--project-name={PROJECT}", *arguments, environment=self.environment)

    def __enter__(self) -> "Stack":
        try:
            self.compose("up", "--detach", "--wait")
        except BaseException as error:
            # Left alone it would run, and restart, for ever.
            try:
                error.add_note(self.compose("logs", "--no-color", "--tail=50"))
            finally:
                self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.compose("--profile=*", "down", "--volumes", "--timeout=30")

    def container(self, service: str) -> str:
        return self.compose("ps", "--all", "--quiet", service).strip()

    def address(self) -> str:
        """The address of the pod itself: Docker's proxy on the host would accept what the gateway no longer does."""
        networks = json.loads(docker("inspect", self.container("pod")))[0]["NetworkSettings"]["Networks"]
        address: str = next(iter(networks.values()))["IPAddress"]
        return address

    def ready(self) -> bool:
        try:
            return requests.get(f"http://127.0.0.1:{self.port}/readyz", timeout=10).ok
        except requests.RequestException:
            return False

    def smoke(self, **environment: str) -> subprocess.CompletedProcess[str]:
        command = ["sh", str(ROOT / "scripts" / "smoke_test.sh"), f"http://127.0.0.1:{self.port}"]
        variables = {**os.environ, **environment}
        return subprocess.run(command, capture_output=True, text=True, env=variables, check=False)


@pytest.fixture(scope="module")
def stack(image: str) -> Iterator[Stack]:
    need(GATEWAY)
    with Stack(image) as running:
        yield running


def test_the_smoke_test_passes_against_the_stack(stack: Stack) -> None:
    done = stack.smoke()
    assert done.returncode == 0, done.stdout


def test_the_smoke_test_fails_where_nothing_answers() -> None:
    command = ["sh", str(ROOT / "scripts" / "smoke_test.sh"), f"http://127.0.0.1:{free_ports(1)[0]}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.startswith("FAILED")) == (1, True)


def test_nothing_runs_as_root_with_capabilities_or_a_writable_root(stack: Stack) -> None:
    for service in ("pod", "server", "gateway", "gateway-config"):
        settings = json.loads(docker("inspect", stack.container(service)))[0]
        assert settings["Config"]["User"] == "10001:10001", service
        assert settings["HostConfig"]["ReadonlyRootfs"], service
        assert settings["HostConfig"]["CapDrop"] == ["ALL"], service
        assert settings["HostConfig"]["Memory"] > 0, service


def test_only_the_gateway_is_published(stack: Stack) -> None:
    for service in ("server", "gateway"):
        assert not json.loads(docker("inspect", stack.container(service)))[0]["HostConfig"]["PortBindings"]
    published = json.loads(docker("inspect", stack.container("pod")))[0]["HostConfig"]["PortBindings"]
    assert published == {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(stack.port)}]}


def test_a_server_whose_java_dies_comes_back_behind_the_same_gateway(stack: Stack) -> None:
    server, gateway = stack.container("server"), stack.container("gateway")
    program = "import psutil; [p.kill() for p in psutil.process_iter() if p.name() == 'java']"
    docker("exec", server, "python", "-c", program)
    deadline = time.monotonic() + READY_S
    while (restarts := json.loads(docker("inspect", server))[0]["RestartCount"]) == 0 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert restarts > 0
    while not stack.ready() and time.monotonic() < deadline:
        time.sleep(1)
    assert stack.container("gateway") == gateway
    assert stack.smoke().returncode == 0


def test_with_keys_the_gateway_wants_one(tmp_path: Path, stack: Stack) -> None:
    keys = tmp_path / "keys"
    keys.write_text("tester:0123456789abcdef0123456789abcdef\n", encoding="utf-8")
    keys.chmod(0o444)
    tmp_path.chmod(0o755)
    stack.environment["VISIONSERVE_API_KEYS"] = str(keys)
    try:
        stack.compose("up", "--detach", "--wait", "--force-recreate")
        refused, allowed = stack.smoke(), stack.smoke(API_KEY="0123456789abcdef0123456789abcdef")
    finally:
        del stack.environment["VISIONSERVE_API_KEYS"]
        stack.compose("up", "--detach", "--wait", "--force-recreate")
    assert "returned 401" in refused.stdout
    assert allowed.returncode == 0, allowed.stdout


def test_a_stop_under_load_loses_no_accepted_request(stack: Stack, photograph: bytes) -> None:
    address, outcomes, done = stack.address(), Counter[str](), threading.Event()

    def client() -> None:
        while not done.is_set():
            outcomes[post(address, photograph)] += 1

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(3)
        stack.compose("stop")
    finally:
        done.set()
        for thread in threads:
            thread.join()
    served = outcomes.pop("200")
    assert served > 20
    assert set(outcomes) <= {"refused"}, outcomes
    for service in ("server", "gateway"):
        assert json.loads(docker("inspect", stack.container(service)))[0]["State"]["ExitCode"] == 0, service
    stack.compose("up", "--detach", "--wait")


def post(address: str, photograph: bytes) -> str:
    """Send one photograph on a connection of its own and return the status, or what became of it."""
    try:
        connection = socket.create_connection((address, 8000), timeout=60)
    except OSError:
        time.sleep(0.05)
        return "refused"
    lines = ["PUT /predictions/flowers HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {len(photograph)}"]
    head = "\r\n".join([*lines, "", ""])
    with connection:
        try:
            connection.sendall(head.encode() + photograph)
            answer = connection.recv(65536)
        except OSError as error:
            return f"lost: {error}"
    return answer.split()[1].decode() if answer else "lost: no answer"
