"""Asks the Docker engine, and the processes in containers, as an operator does: by the `docker` command."""

import json
import os
import subprocess
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
# Starting takes seconds; two busy cores take many of them.
READY_S = 300
HARDENED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp:exec,mode=1777")
# Run in a container, which has Python but no curl: a request to a port of its own; its body comes from standard input.
_ASK = """
import sys, urllib.request, urllib.error
method, url = sys.argv[1:]
kind = {"Content-Type": "application/octet-stream"}
body = sys.stdin.buffer.read() or None
try:
    answer = urllib.request.urlopen(urllib.request.Request(url, body, kind, method=method), timeout=60)
except urllib.error.HTTPError as error:
    answer = error
print(answer.status)
print(answer.read().decode())
"""
_PROCESSES = """
import psutil
for process in psutil.process_iter(["status", "name", "cmdline"]):
    line = " ".join(process.info["cmdline"] or [process.info["name"]])
    print(process.pid, process.info["status"], line.replace("\\n", " "))
"""


def docker(*arguments: str, data: bytes | None = None, environment: dict[str, str] | None = None) -> str:
    """Run a docker command and return what it printed; its complaint fails the test."""
    done = attempt(*arguments, data=data, environment=environment)
    assert done.returncode == 0, f"docker {' '.join(arguments)}\n{done.stdout.decode()}\n{done.stderr.decode()}"
    return done.stdout.decode()


def attempt(
    *arguments: str, data: bytes | None = None, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a docker command that may fail."""
    variables = {**os.environ, **(environment or {})}
    return subprocess.run(
        ["docker", *arguments], input=data or b"", capture_output=True, env=variables, cwd=ROOT, check=False
    )


@dataclass
class Container:
    """A container of the server's image."""

    image: str
    options: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    name: str = field(default_factory=lambda: f"visionserve-test-{uuid.uuid4().hex[:8]}")

    def __enter__(self) -> "Container":
        docker("run", "--detach", f"--name={self.name}", *HARDENED, *self.options, self.image, *self.arguments)
        return self

    def __exit__(self, *_: object) -> None:
        attempt("rm", "--force", "--volumes", self.name)

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(docker("inspect", self.name))[0]
        return state

    def log(self) -> str:
        done = attempt("logs", self.name)
        return (done.stdout + done.stderr).decode()

    def ready(self) -> "Container":
        """Wait until Docker calls it healthy."""
        deadline = time.monotonic() + READY_S
        while (state := self.state()["State"])["Running"] and time.monotonic() < deadline:
            if state["Health"]["Status"] == "healthy":
                return self
            time.sleep(0.5)
        raise AssertionError(f"{self.name} did not become healthy:\n{self.log()}")

    def ended(self, timeout_s: float = 60) -> int:
        """Wait for its end and return its exit code."""
        deadline = time.monotonic() + timeout_s
        while (state := self.state()["State"])["Running"] and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not state["Running"], f"{self.name} still runs:\n{self.log()}"
        code: int = state["ExitCode"]
        return code

    def ask(self, method: str, path: str, port: int, data: bytes | None = None) -> tuple[int, Any]:
        url = f"http://127.0.0.1:{port}{path}"
        answer = docker("exec", "--interactive", self.name, "python", "-c", _ASK, method, url, data=data)
        status, _, body = answer.partition("\n")
        return int(status), json.loads(body)

    def predict(self, photograph: bytes) -> tuple[int, Any]:
        return self.ask("PUT", "/predictions/flowers", 8080, photograph)

    def processes(self) -> list[tuple[int, str, str]]:
        """Return process id, state and command line of everything that runs inside."""
        lines = docker("exec", self.name, "python", "-c", _PROCESSES).splitlines()
        rows = [line.split(maxsplit=2) for line in lines]
        return [(int(number), status, rest) for number, status, rest in rows]

    def kill(self, what: str) -> None:
        """Kill the first process whose command line holds ``what``."""
        number = next(number for number, _, line in self.processes() if what in line)
        docker("exec", self.name, "python", "-c", f"import os; os.kill({number}, 9)")
