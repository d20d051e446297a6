"""scripts/smoke_test.sh passes on a real service, and fails where something is open that must be closed."""

import json
import os
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.e2e.conftest import E2E, ROOT, Service, start, stop
from tests.e2e.gateway.gateways import NEEDS_NGINX, Behind, Gateway, Reply, Seen, behind, running

pytestmark = [*E2E, NEEDS_NGINX]
FORWARDED = ("x-request-id", "content-type")
# What a careless proxy in front might answer.
OPEN = {
    ("GET", "/metrics"): Reply(200, b"ts_inference_requests_total 1"),
    ("POST", "/drain"): Reply(202, b'{"draining": true}'),
    ("GET", "/docs"): Reply(200, b'<div id="page">', {"Content-Security-Policy": "default-src *"}),
}


def smoke(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["sh", str(ROOT / "scripts" / "smoke_test.sh"), *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def gateway(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    inference, status = (f"127.0.0.1:{service.ports[name]}" for name in ("port", "status_port"))
    with running(tmp_path_factory.mktemp("smoke"), inference, status=status) as started:
        yield started


def failures(done: "subprocess.CompletedProcess[str]") -> list[str]:
    return [line for line in done.stdout.splitlines() if line.startswith("FAILED")]


def test_a_service_passes_whatever_else_listens_beside_it(gateway: Gateway) -> None:
    done = smoke(gateway.url(""))
    assert (done.returncode, failures(done)) == (0, []), done.stdout + done.stderr
    assert "is closed" not in done.stdout


def test_the_model_that_is_served_is_asked_whatever_its_name(model_store: Path, tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(model_store / "flowers.mar") as flowers,
        zipfile.ZipFile(tmp_path / "pets.mar", "w") as pets,
    ):
        for name in flowers.namelist():
            content = flowers.read(name)
            if name == "card.json":
                content = json.dumps({**json.loads(content), "name": "pets"}).encode()
            if name == "MAR-INF/MANIFEST.json":
                content = content.replace(b'"flowers"', b'"pets"')
            pets.writestr(name, content)
    service = start(tmp_path, tmp_path / "service.log", TS_DEFAULT_WORKERS_PER_MODEL="1")
    try:
        inference, status = (f"127.0.0.1:{service.ports[name]}" for name in ("port", "status_port"))
        with running(tmp_path, inference, status=status) as gateway:
            done, other = smoke(gateway.url("")), smoke(gateway.url(""), MODEL="flowers")
    finally:
        stop(service)
    assert (done.returncode, failures(done)) == (0, []), done.stdout + done.stderr
    assert "PUT /predictions/pets returns 200" in done.stdout
    assert other.returncode == 1
    assert failures(other)[0].startswith('FAILED GET /models returned 200 without "flowers"')


def test_in_public_torchserves_ports_must_be_closed(service: Service, gateway: Gateway) -> None:
    ports = [service.ports[name] for name in ("port", "management_port", "metrics_port", "status_port", "grpc_port")]
    done = smoke("--public", gateway.url(""), CLOSED_PORTS=f"{' '.join(map(str, ports))} {gateway.port}")
    assert done.returncode == 1
    assert failures(done) == [f"FAILED port {port} of 127.0.0.1 is open: close it" for port in ports]
    assert "note   without an API key" in done.stdout
    assert smoke("--public", gateway.url(""), CLOSED_PORTS="1").returncode == 0


def test_operators_paths_must_be_closed(gateway: Gateway) -> None:
    def careless(seen: Seen) -> Reply:
        if reply := OPEN.get((seen.method, seen.path)):
            return reply
        headers = {name: value for name, value in seen.headers.items() if name in FORWARDED}
        answer = requests.request(
            seen.method, gateway.url(seen.path.lstrip("/")), data=seen.body, headers=headers, timeout=60
        )
        kept = {
            name: value for name, value in answer.headers.items() if not name.lower().startswith(("content-l", "conn"))
        }
        return Reply(
            answer.status_code, answer.content, {k: v for k, v in kept.items() if k.lower() != "content-encoding"}
        )

    with behind(careless) as proxy:
        done = smoke(address(proxy))
    assert done.returncode == 1
    assert [" ".join(line.split()[1:4]) for line in failures(done)] == [
        "GET /docs has",
        "GET /metrics returned",
        "POST /drain returned",
    ]


def address(server: Behind) -> str:
    return f"http://{server.address}"


@pytest.mark.parametrize("arguments", [(), ("--public",), ("--help",), ("a", "b", "c")], ids=" ".join)
def test_a_wrong_call_is_a_sentence(arguments: tuple[str, ...]) -> None:
    done = smoke(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: ")
