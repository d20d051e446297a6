"""scripts/deploy_*.sh deploy, smoke-test and roll back; with fakes of kubectl and docker."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DIGEST = "ghcr.io/someone/visionserve@sha256:" + "0" * 64
# Records its calls, and the manifests it is to apply.
KUBECTL = """#!/bin/sh
echo "kubectl $*" >> "$CALLS"
case "$*" in
    kustomize*) printf 'image: visionserve:1.0.0\\nimage: nginxinc/nginx-unprivileged:1.28.0\\n' ;;
    apply*) cat >> "$CALLS" ;;
    *port-forward*) exec sleep 30 ;;
    *status*) [ -z "$STUCK" ] ;;
esac
"""
DOCKER = """#!/bin/sh
echo "$VISIONSERVE_IMAGE docker $*" >> "$CALLS"
case "$*" in
    *ps*) echo container ;;
    inspect*) echo visionserve:before ;;
    *port*) echo 127.0.0.1:8000 ;;
    *up*) [ "$VISIONSERVE_IMAGE" != "$STUCK" ] ;;
esac
"""


class Checkout:
    """A copy of the scripts with a smoke test that passes or fails, and the programs they call."""

    def __init__(self, folder: Path, smoke: int) -> None:
        self.calls = folder / "calls"
        self.calls.touch()
        programs = folder / "bin"
        (folder / "scripts").mkdir()
        (folder / "k8s" / "overlays" / "cpu").mkdir(parents=True)
        programs.mkdir()
        for script in (ROOT / "scripts").glob("deploy_*.sh"):
            shutil.copy(script, folder / "scripts")
        write(folder / "scripts" / "smoke_test.sh", f'#!/bin/sh\necho "smoke $*" >> "$CALLS"\nexit {smoke}\n')
        for name, text in (("kubectl", KUBECTL), ("docker", DOCKER), ("curl", "#!/bin/sh\n")):
            write(programs / name, text)
        self.folder = folder
        self.environment = {"PATH": f"{programs}:{os.environ['PATH']}", "CALLS": str(self.calls), "STUCK": ""}

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [str(self.folder / "scripts" / script), *arguments]
        variables = {**self.environment, **environment}
        return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=False)


def write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def test_a_build_that_serves_stays(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, smoke=0)
    done = checkout.run("deploy_kubernetes.sh", "cpu", DIGEST)
    calls = checkout.calls.read_text()
    assert done.returncode == 0, done.stderr
    assert f"image: {DIGEST}\n" in calls and "image: nginxinc/nginx-unprivileged:1.28.0\n" in calls
    assert "smoke http://127.0.0.1:18000" in calls
    assert "undo" not in calls


@pytest.mark.parametrize(("smoke", "stuck"), [(1, ""), (0, "yes")], ids=["the smoke test fails", "pods are not ready"])
def test_a_build_that_does_not_serve_is_rolled_back(tmp_path: Path, smoke: int, stuck: str) -> None:
    checkout = Checkout(tmp_path, smoke)
    done = checkout.run("deploy_kubernetes.sh", "cpu", DIGEST, STUCK=stuck)
    assert done.returncode == 1
    assert "rolling back" in done.stderr
    assert "rollout undo deployment/visionserve" in checkout.calls.read_text()


def test_a_public_address_is_asked_instead(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, smoke=0)
    checkout.run("deploy_kubernetes.sh", "cpu", DIGEST, SMOKE_URL="https://flowers.example.org")
    calls = checkout.calls.read_text()
    assert "smoke --public https://flowers.example.org" in calls and "port-forward" not in calls


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(["cpu"], "usage"), (["tpu", DIGEST], "Unknown overlay tpu"), (["cpu", "visionserve"], "has no version")],
)
def test_a_wrong_call_changes_nothing(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    checkout = Checkout(tmp_path, smoke=0)
    done = checkout.run("deploy_kubernetes.sh", *arguments)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert checkout.calls.read_text() == ""


def test_compose_keeps_a_build_that_serves(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, smoke=0)
    assert checkout.run("deploy_compose.sh", DIGEST).returncode == 0
    assert f"{DIGEST} docker compose up" in checkout.calls.read_text()
    assert "visionserve:before docker" not in checkout.calls.read_text()


@pytest.mark.parametrize(
    ("smoke", "stuck"), [(1, ""), (0, DIGEST)], ids=["the smoke test fails", "it never gets healthy"]
)
def test_compose_goes_back_to_the_build_before(tmp_path: Path, smoke: int, stuck: str) -> None:
    checkout = Checkout(tmp_path, smoke)
    done = checkout.run("deploy_compose.sh", DIGEST, STUCK=stuck)
    assert done.returncode == 1
    assert "visionserve:before docker compose up" in checkout.calls.read_text()
