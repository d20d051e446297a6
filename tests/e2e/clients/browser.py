"""A browser and a page for the tests of the page: both started here, both looked at as people do."""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, FilePayload, Locator, Page, sync_playwright

ROOT = Path(__file__).parents[3]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
INPUT = '[data-testid="stFileUploaderDropzoneInput"]'
START_TIMEOUT_S = 60
WAIT_MS = 60_000


@dataclass(frozen=True)
class Site:
    """A page that is served: where, and the file that its feedback goes to."""

    url: str
    feedback: Path


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the Chromium that is installed, or skip."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium to drive the page with: apt-get install chromium fonts-dejavu-core")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def page_server(
    port: int, folder: Path, environment: Mapping[str, str], *options: str, path: str = ""
) -> Iterator[Site]:
    """Serve the page on a port as `make ui` does, until the block ends."""
    feedback = folder / "feedback.jsonl"
    command = [sys.executable, "-m", "streamlit", "run", "ui/page.py", f"--server.port={port}", *options]
    own = {**os.environ, **environment, "UI_FEEDBACK": str(feedback)}
    with (folder / "page.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env=own)
    try:
        url = f"http://127.0.0.1:{port}{path}"
        wait_for(f"{url}/_stcore/health", folder / "page.log")
        yield Site(url, feedback)
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_for(url: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        with suppress(requests.RequestException):
            if requests.get(url, timeout=5).ok:
                return
        time.sleep(0.1)
    pytest.fail(f"the page did not start:\n{log.read_text()}")


@contextmanager
def relay(port: int, target: int) -> Iterator[None]:
    """Pass connections to a loopback port on to another, so that a service can appear where none was."""
    listener = socket.create_server(("127.0.0.1", port))

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", target))
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=pump, args=(source, sink), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def pump(source: socket.socket, sink: socket.socket) -> None:
    with closing(sink), suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)


def give(page: Page, *files: FilePayload) -> None:
    """Choose files in the page's uploader and wait until each has its result and the page is at rest.

    Streamlit draws piece by piece: a piece that is drawn again loses the focus, and its pictures get new addresses.
    """
    page.set_input_files(INPUT, files)
    results(page).nth(len(files) - 1).wait_for(timeout=WAIT_MS)
    page.locator("[data-test-script-state=notRunning]").wait_for(timeout=WAIT_MS)


def results(page: Page) -> Locator:
    """Return what became of the files, answers and refusals."""
    return page.locator(".vs-bars, .vs-declined")
