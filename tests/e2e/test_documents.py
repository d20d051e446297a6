"""The documents' commands, run: those that need nothing but a service, and the whole tutorial.

They run in a folder that looks like the repository but keeps what is written to itself.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import sample_images
from tests.docs.commands import Command, asks_a_service, collect, read
from tests.e2e.conftest import E2E, PORTS, START_TIMEOUT_S, Service, free_ports
from tests.repository import ROOT

pytestmark = E2E
TUTORIAL = ROOT / "docs" / "tutorial.md"


ASKING = [command for command in collect() if asks_a_service(command)]


@pytest.fixture(scope="module")
def likeness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of links to everything in the repository, except what commands write to."""
    folder = tmp_path_factory.mktemp("likeness")
    for path in ROOT.iterdir():
        if path.name not in ("model_store", "runs", ".git", "logs"):
            (folder / path.name).symlink_to(path)
    (folder / "model_store").mkdir()
    for path in (ROOT / "model_store").iterdir():
        (folder / "model_store" / path.name).symlink_to(path)
    sample_images.draw(folder / "images", each=30)
    (folder / "photo.jpg").write_bytes((folder / "images" / "circle" / "000.jpg").read_bytes())
    return folder


def environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def skip_without_curl(line: str = "curl ") -> None:
    """Skip the test where its line cannot run: a bare Debian has no curl."""
    if "curl " in line and shutil.which("curl") is None:
        pytest.skip("curl is not installed: apt-get install curl")


def shell(line: str, folder: Path, timeout_s: float = 500) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", line],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_there_are_commands_that_ask_a_service() -> None:
    assert {command.words[0] for command in ASKING} == {"curl", "make"}


@pytest.mark.parametrize("command", ASKING, ids=lambda command: f"{command.document}:{command.line}")
def test_a_command_of_a_document_is_answered(command: Command, service: Service, likeness: Path) -> None:
    skip_without_curl(command.text)
    line = re.sub(r"\s+#.*", "", command.text).replace(":8080/", f":{service.ports['port']}/")
    if command.words[0] == "make":
        line += f' ARGS="--url http://127.0.0.1:{service.ports["port"]}"'
    said = shell(line.replace("curl ", "curl --fail-with-body --no-progress-meter "), likeness)
    saved = re.search(r" -o (\S+)", line)
    if saved is not None:
        assert (likeness / saved[1]).read_bytes().startswith(b"\x89PNG")
    else:
        assert "novelty" in said


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    return dict(zip(PORTS, free_ports(len(PORTS)), strict=True))


@pytest.fixture
def background() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes to stop at the end, whatever happens."""
    running: list[subprocess.Popen[bytes]] = []
    yield running
    for process in running:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=120)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_tutorial_works_line_by_line(
    likeness: Path, ports: dict[str, int], background: list[subprocess.Popen[bytes]]
) -> None:
    skip_without_curl()
    for command in read(TUTORIAL):
        line = re.sub(r"\s+#.*", "", command.text)
        if line.startswith(("source ", "make .venv/")):
            continue  # the environment of the tests is that very one
        if line == "python -m scripts.sample_images images":
            line += " --each 40"  # two thirds of the images are enough for shapes as easy as these
        if line.startswith("make train"):
            line = line.replace('--name shapes"', f'--name shapes {_short()}"')
        line = line.replace("127.0.0.1:8080", f"127.0.0.1:{ports['port']}")
        if line.startswith("make serve"):
            background.append(_serve(line, ports, likeness))
            continue
        if line.startswith("make predict"):
            line += f' ARGS="--url http://127.0.0.1:{ports["port"]}"'
        if line.startswith("python -m monitoring evaluate"):
            line += f" --url http://127.0.0.1:{ports['port']}"
        shell(line, likeness, 1500)
    (path,) = (likeness / "runs" / "live").glob("*/report.md")
    report = path.read_text()
    agreed = re.search(r"\| same label as offline \| (\d+) of (\d+) \|", report)
    assert agreed is not None
    assert agreed[1] == agreed[2] != "0"
    assert (likeness / "heatmap.png").read_bytes().startswith(b"\x89PNG")


def _short() -> str:
    """Return options for a few epochs from the real weights, where there are any; without them more, from nothing."""
    data = os.environ.get("VISIONSERVE_DATA")
    weights = Path(data, "weights", "resnet18-imagenet.safetensors") if data else None
    if weights is not None and weights.is_file():
        return f"--init {weights} --epochs 4 --least_steps 0"
    return "--init none --epochs 12 --least_steps 0"


def _serve(line: str, ports: dict[str, int], folder: Path) -> "subprocess.Popen[bytes]":
    options = " ".join(f"--{name.replace('_', '-')}={port}" for name, port in ports.items())
    log = folder / "serve.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            ["bash", "-c", f'exec {line} ARGS="{options}"'],
            cwd=folder,
            env=environment(),
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_TIMEOUT_S
    while "Serving at" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.3)
    return process
