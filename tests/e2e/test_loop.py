"""The page of a model's life, docs/releases.md, from beginning to end: its commands, taken out of the document.

Five of the birds, fourteen images each, are the folder; six others each come later. Nothing is added to the document's
commands except what bounds the time, and, without a network, the initial weights.
"""

import csv
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import requests
from playwright.sync_api import expect

from launcher import releases
from launcher.releases import Release
from tests.docs.commands import Command, read
from tests.e2e.clients import browser as browsing
from tests.e2e.clients.browser import WAIT_MS, give
from tests.e2e.conftest import E2E, START_TIMEOUT_S
from tests.e2e.gateway.gateways import NEEDS_NGINX
from tests.e2e.test_documents import environment
from tests.repository import ROOT
from training.data.review_list import HEADER

PAGE = ROOT / "docs" / "releases.md"
DATA = Path(os.environ.get("VISIONSERVE_DATA", ""))
BIRDS, WEIGHTS = DATA / "CUB_200_2011" / "images", DATA / "weights" / "resnet18-imagenet.safetensors"
LABELS, IMAGES, LATER = 5, 14, 6
SHORT = f"--init {WEIGHTS} --epochs 2 --least_steps 0"
COMMAND_S = 600
pytestmark = [
    *E2E,
    NEEDS_NGINX,
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        not (BIRDS.is_dir() and WEIGHTS.is_file()),
        reason="set VISIONSERVE_DATA to a folder that has CUB_200_2011 and weights",
    ),
]


class Loop:
    """A folder like the repository, its ports, and the programs that run in the reader's terminals."""

    def __init__(self, folder: Path, offset: int) -> None:
        self.folder, self.offset = folder, offset
        self.said: dict[str, str] = {}
        self._terminals: dict[str, subprocess.Popen[bytes]] = {}
        self._environment = {
            **environment(),
            "VISIONSERVE_PORT_OFFSET": str(offset),
            "GATEWAY_PORT_OFFSET": str(offset),
            "VISIONSERVE_URL": self.url(8080),
            "UI_SERVICE_URL": self.url(8080),
            "UI_STATUS_URL": self.url(8083),
            "STREAMLIT_SERVER_PORT": str(8501 + offset),
        }

    def url(self, port: int) -> str:
        return f"http://127.0.0.1:{port + self.offset}"

    def run(self, command: Command) -> None:
        """Run a command as its reader does; those that stay in the foreground get a terminal."""
        line = re.sub(r"\s+#.*", "", command.text).replace(":8000", f":{8000 + self.offset}")
        if line.startswith("make train"):
            line = f'{line[:-1]} {SHORT}"'
        target = command.words[1]
        if target in ("serve", "gateway", "ui"):
            self.stop(target)
            self._open(target, line)
            return
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        self.said[line] = done.stdout + done.stderr

    def _open(self, target: str, line: str) -> None:
        log = self.folder / f"{target}.terminal"
        with log.open("wb") as stream:
            self._terminals[target] = subprocess.Popen(
                ["bash", "-c", line],
                cwd=self.folder,
                env=self._environment,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        ready = {"serve": "Serving at", "gateway": "Gateway at", "ui": "URL:"}[target]
        deadline = time.monotonic() + START_TIMEOUT_S
        while ready not in log.read_text():
            assert self._terminals[target].poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        self.said[f"{target} {len(self.said)}"] = log.read_text()

    def stop(self, target: str) -> None:
        """Press Ctrl-C in a terminal."""
        process = self._terminals.pop(target, None)
        if process is not None:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(timeout=120)

    def close(self) -> None:
        for target in list(self._terminals):
            process = self._terminals.pop(target)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=120)


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    for path in ROOT.iterdir():
        if path.name not in ("model_store", "runs", ".git", "logs", "images", "new"):
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / "model_store").mkdir()
    for bird in sorted(path for path in BIRDS.iterdir() if path.is_dir())[:LABELS]:
        files = sorted(bird.iterdir())
        for folder, own in (("images", files[:IMAGES]), ("new", files[IMAGES : IMAGES + LATER])):
            (tmp_path / folder / bird.name).mkdir(parents=True)
            for file in own:
                shutil.copy(file, tmp_path / folder / bird.name)
    running = Loop(tmp_path, _offset())
    yield running
    running.close()


def test_the_whole_loop_works_line_by_line(loop: Loop) -> None:
    commands = [command for command in read(PAGE) if not command.not_run]
    assert [command.words[0] for command in commands].count("make") > 10
    for command in commands:
        if command.words[0] == "source" or command.words[1].startswith(".venv/"):
            continue  # the environment of the tests is that very one
        if command.words[:2] == ("make", "release") and "SHADOW=100" in command.words:
            assert _asked(loop) == "1.0"  # both versions are there, and 1.0 goes on answering
        if command.words[0] == "tee":
            continue  # behind a pipe, of the line before
        if command.words[:3] == ("python", "-m", "monitoring") and command.words[3] == "corrections":
            _judge_on_the_page(loop)
        loop.run(command)
        if command.words[:2] == ("make", "serve"):
            _says_something_of_its_own(loop)
        if command.words[:3] == ("python", "-m", "monitoring") and command.words[3] == "corrections":
            _review(loop.folder / "runs" / "review" / "review.csv")
        if command.words[:2] == ("make", "release") and "SHADOW=100" in command.words:
            time.sleep(2)  # the gateway takes it over within a second
    _check(loop)


def _judge_on_the_page(loop: Loop) -> None:
    """Say on the page that an answer is wrong, and let the image be kept."""
    right = max(path.name for path in (loop.folder / "new").iterdir())
    file = min((loop.folder / "new" / right).iterdir())
    with browsing.chromium() as browser:
        page = browser.new_page(viewport={"width": 1180, "height": 1400})
        page.goto(loop.url(8501))
        give(page, {"name": file.name, "mimeType": "image/jpeg", "buffer": file.read_bytes()})
        page.get_by_text("Keep this image with my answer").click()
        page.get_by_role("combobox", name="it is really a").click()
        page.get_by_role("option", name="something else, or I do not know").click()
        page.get_by_role("button", name="Send").click()
        expect(page.get_by_text("Saved as")).to_be_visible(timeout=WAIT_MS)


def _review(path: Path) -> None:
    """Decide: every listed image is used, under the label that a person knows or that its folder had."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["origin"] for row in rows} == {"feedback", "evaluation"}, rows
    for row in rows:
        row["use"] = "yes"
        row["label"] = row["label"] or max(read_labels(path.parents[2]))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, HEADER)
        writer.writeheader()
        writer.writerows(rows)


def read_labels(folder: Path) -> list[str]:
    labels: list[str] = json.loads((folder / "model_store" / "mine" / "card.json").read_text())["labels"]
    return labels


def _says_something_of_its_own(loop: Loop) -> None:
    assert (
        "One of the test images of mine, model_store/.samples/mine.jpg:" in (loop.folder / "serve.terminal").read_text()
    )


def _asked(loop: Loop) -> str:
    file = next((loop.folder / "new").glob("*/*.jpg"))
    response = requests.put(loop.url(8000) + "/predictions/mine", data=file.read_bytes(), timeout=60)
    assert response.status_code == 200
    version: str = response.json()["model"]["version"]
    return version


def _check(loop: Loop) -> None:
    """Look at what the loop has left."""
    first, second = (loop.folder / "model_store" / name / "manifest.csv" for name in ("mine", "mine-1.1"))
    before, after = (_rows(path) for path in (first, second))
    assert before.items() <= after.items()  # every row stays as it is
    joined = after.keys() - before.keys()
    assert joined
    assert {after[path] for path in joined} == {"train"}
    assert "release" in next(text for line, text in loop.said.items() if " compare " in line).lower()
    agreed = next(text for line, text in loop.said.items() if "monitoring shadow" in line)
    assert "mine 1.1 in the shadow: 30 copies" in agreed
    assert "same best label: " in agreed
    stated = releases.load(loop.folder / "model_store" / releases.FILE_NAME)["mine"]
    assert stated == Release("1.0", "1.1")  # switched, and rolled back
    assert _asked(loop) == "1.0"


def _rows(path: Path) -> dict[str, str]:
    with path.open(encoding="utf-8", newline="") as file:
        return {row["path"]: row["split"] for row in csv.DictReader(file)}


def _offset() -> int:
    """Return what to add to the usual ports so that nobody listens on any of them."""
    usual = (7070, 7071, 8000, 8080, 8081, 8082, 8083, 8084, 8501)
    for offset in random.Random(os.getpid()).sample(range(2000, 20000, 100), 100):
        with suppress(OSError):
            held = []
            try:
                held = [socket.create_server(("127.0.0.1", port + offset)) for port in usual]
                return offset
            finally:
                for listener in held:
                    listener.close()
    raise AssertionError("no offset is free")
