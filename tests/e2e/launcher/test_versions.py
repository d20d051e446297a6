"""Two versions of a model in one service: side by side, in the shadow, switched and switched back under load."""

import json
import subprocess
import sys
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from launcher import releases
from launcher.releases import Release
from tests.e2e.conftest import E2E, ROOT, VERSION, Service, start, stop
from tests.e2e.gateway.gateways import NEEDS_NGINX, running

pytestmark = E2E
NEXT = "9.0"


def with_version(source: Path, target: Path, version: str) -> None:
    """Copy an archive as another version."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "card.json":
                content = json.dumps({**json.loads(content), "version": version}, ensure_ascii=False).encode()
            if name == "MAR-INF/MANIFEST.json":
                manifest = json.loads(content)
                manifest["model"]["modelVersion"] = version
                content = json.dumps(manifest).encode()
            new.writestr(name, content)


@pytest.fixture(scope="module")
def store(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions; TorchServe alone would let the first file by name answer, which is the new one."""
    folder = tmp_path_factory.mktemp("versions")
    (folder / "flowers.mar").symlink_to(model_store / "flowers.mar")
    with_version(model_store / "flowers.mar", folder / "flowers-new.mar", NEXT)
    releases.save(folder / releases.FILE_NAME, {"flowers": Release(VERSION)})
    return folder


@pytest.fixture(scope="module")
def two(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = start(store, tmp_path_factory.mktemp("log") / "service.log")
    yield service
    assert stop(service) == 0


def release(service: Service, store: Path, *options: str) -> str:
    """Run the command as a person does."""
    ports = [f"--{name.replace('_', '-')}={port}" for name, port in service.ports.items()]
    command = [sys.executable, "-m", "launcher", "release", f"--model-store={store}", *ports, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_versions_answer_side_by_side_and_everything_agrees_about_the_default(
    two: Service, photograph: bytes, store: Path
) -> None:
    def answers(path: str) -> str:
        version: str = two.put(photograph, path).json()["model"]["version"]
        return version

    assert answers("predictions/flowers") == answers(f"predictions/flowers/{VERSION}") == VERSION
    assert answers(f"predictions/flowers/{NEXT}") == NEXT
    listed = requests.get(two.url("models", "status_port"), timeout=30).json()["models"]
    assert [(model["version"], model["default"], model["status"]) for model in listed] == [
        (VERSION, True, "ready"),
        (NEXT, False, "ready"),
    ]
    assert requests.get(two.url("models/flowers", "status_port"), timeout=30).json()["version"] == VERSION
    assert requests.get(two.url(f"models/flowers/{NEXT}", "status_port"), timeout=30).json()["version"] == NEXT
    assert f"beside it {two.url(f'predictions/flowers/{NEXT}')}" in two.log.read_text()
    command = [sys.executable, "-m", "visionserve.cli", "models", two.url("", "status_port").rstrip("/")]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[1].split()[:4] == ["flowers", VERSION, "by", "default"]
    assert release(two, store).startswith(f"flowers {VERSION} answers; also there: {NEXT}.")


@NEEDS_NGINX
def test_a_shadow_a_share_a_switch_and_the_way_back_lose_no_request(
    two: Service, photograph: bytes, store: Path, tmp_path: Path
) -> None:
    inference = f"127.0.0.1:{two.ports['port']}"
    with running(tmp_path, inference, releases_file=store / releases.FILE_NAME, per_client=64) as gateway:
        stopped = threading.Event()
        outcomes: Counter[str] = Counter()

        def load(url: str) -> None:
            while not stopped.is_set():
                try:
                    response = requests.put(url, data=photograph, timeout=60)
                    outcomes[response.json()["model"]["version"] if response.ok else str(response.status_code)] += 1
                except requests.RequestException as error:
                    outcomes[repr(error)] += 1

        # By way of the gateway, and at TorchServe's own port.
        urls = (gateway.url("predictions/flowers"), two.url("predictions/flowers"))
        threads = [threading.Thread(target=load, args=(url,)) for url in urls]
        for thread in threads:
            thread.start()
        try:
            steps: tuple[list[str], ...] = (["--shadow=100"], ["--share=50"], [], ["--back"], [], ["--back"])
            for step in steps:
                named = step if step == ["--back"] else [f"--version={NEXT}", *step]
                release(two, store, *named)
                stopped.wait(3)
                default = requests.get(two.url("models/flowers", "status_port"), timeout=30).json()["version"]
                assert default == releases.load(store / releases.FILE_NAME)["flowers"].default
        finally:
            stopped.set()
            for thread in threads:
                thread.join(90)
        assert set(outcomes) == {VERSION, NEXT}, outcomes
        lines = [json.loads(line) for line in gateway.log.read_text().splitlines() if '"shadow":' in line]
    assert lines
    assert {json.loads(line["prediction"])["version"] for line in lines if line["status"] == "200"} == {NEXT}
    assert releases.load(store / releases.FILE_NAME)["flowers"].default == VERSION


def test_a_second_service_beside_the_first_needs_one_option(model_store: Path) -> None:
    offset = 1234
    command = [sys.executable, "-m", "launcher", "doctor", f"--model-store={model_store}", f"--port-offset={offset}"]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False).stdout
    for port in (8080, 8083, 8084, 7071):
        assert f"port {port + offset}" in lines
