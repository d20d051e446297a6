"""The rendered CPU overlay as a real pod, by `podman kube play`, answers a real photograph through its gateway.

podman plays the Deployment with its init container, ConfigMaps, limits and security context; Services, policies and
probes need a cluster. It takes the images from its own store:
    docker save visionserve:1.0.0 nginxinc/nginx-unprivileged:1.28.0-bookworm | podman load
VISIONSERVE_PODMAN names another program than the one on the path.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
import requests
import yaml

from tests.contract.manifests import of_kind, only, pods, rendered
from tests.e2e.conftest import free_ports

pytestmark = [pytest.mark.container, pytest.mark.timeout(600)]

PODMAN = os.environ.get("VISIONSERVE_PODMAN") or shutil.which("podman")
SERVER = "visionserve-pod-server"
START_TIMEOUT_S = 300


def podman(*arguments: str, check: bool = True) -> str:
    assert PODMAN is not None
    # Its complaint about version 1 of cgroups would be among the output.
    quiet = {**os.environ, "PODMAN_IGNORE_CGROUPSV1_WARNING": "1"}
    done = subprocess.run([PODMAN, *arguments], env=quiet, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout


@pytest.fixture(scope="session", autouse=True)
def engine() -> None:
    """Need no Docker engine, unlike the tests beside this file: podman runs containers by itself."""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The gateway of a pod made from the CPU overlay, ready."""
    if PODMAN is None:
        pytest.skip(
            "podman is not installed: on Debian 13, `apt-get install podman` (12's handles init containers wrongly)"
        )
    for image in sorted({one["image"] for pod in pods(rendered("overlays/cpu")) for one in pod.containers}):
        if subprocess.run([PODMAN, "image", "exists", image], capture_output=True, check=False).returncode:
            pytest.skip(f"podman has no {image}: `make image`, then `docker save {image} | podman load`")
    manifests = tmp_path_factory.mktemp("play") / "cpu.yaml"
    manifests.write_text(yaml.safe_dump_all(playable()))
    (port,) = free_ports(1)
    try:
        podman("kube", "play", "--publish", f"127.0.0.1:{port}:8000", str(manifests))
        wait_until_ready(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
    finally:
        podman("kube", "down", str(manifests), check=False)


def playable() -> list[object]:
    """Return what podman can play, unchanged but for the number of pods: it makes one."""
    manifests = rendered("overlays/cpu")
    deployment = only(manifests, "Deployment")
    return [*of_kind(manifests, "ConfigMap"), {**deployment, "spec": {**deployment["spec"], "replicas": 1}}]


def wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    answer = "nothing"
    while time.monotonic() < deadline:
        try:
            response = requests.get(f"{url}/readyz", timeout=5)
        except requests.RequestException as error:
            answer = type(error).__name__
        else:
            if response.status_code == 200:
                return
            answer = response.text
        time.sleep(1)
    pytest.fail(f"not ready after {START_TIMEOUT_S} s ({answer}): {podman('logs', SERVER, check=False)}")


def test_the_pod_answers_a_photograph_through_its_gateway(url: str) -> None:
    photograph = files("sklearn.datasets").joinpath("images/flower.jpg").read_bytes()
    response = requests.put(f"{url}/predictions/flowers?top_k=2", data=photograph, timeout=60)
    assert response.status_code == 200, response.text
    predictions = response.json()["predictions"]
    assert predictions[0]["label"] == "pink-yellow dahlia"
    assert len(predictions) == 2


def test_the_pod_explains_what_is_wrong_with_a_body(url: str) -> None:
    response = requests.put(f"{url}/predictions/flowers", data=b"no photograph", timeout=60)
    assert (response.status_code, response.json()["error"]["code"]) == (415, "unsupported_image")


@pytest.mark.parametrize("path", ["metrics", "drain", "ping", "workflows", "models/flowers?min_worker=0"])
def test_the_management_is_not_reached_from_outside(url: str, path: str) -> None:
    response = requests.post(f"{url}/{path}", timeout=30)
    assert response.status_code in (404, 405), response.text


def test_the_server_sees_its_limits_and_starts_a_worker_for_each_core(url: str) -> None:
    (model,) = requests.get(f"{url}/models", timeout=30).json()["models"]
    assert model["status"] == "ready"
    assert model["workers"] == {"ready": 2, "total": 2}


def test_the_server_has_no_privilege_and_nothing_to_write_but_tmp(url: str) -> None:
    assert url
    status = dict(line.split(":", 1) for line in podman("exec", SERVER, "cat", "/proc/1/status").splitlines())
    assert status["Uid"].split() == ["10001"] * 4
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert (status["NoNewPrivs"].strip(), status["Seccomp"].strip()) == ("1", "2")
    program = "import pathlib, sys; pathlib.Path(sys.argv[1], 'x').write_text('x')"
    for folder, writable in (("/app", False), ("/models", False), ("/tmp", True)):
        arguments = [str(PODMAN), "exec", SERVER, "python", "-c", program, str(Path(folder))]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) is writable, (folder, done.stderr)
