"""Workers are forked for Java by a server that has imported what they need."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher import process

# What a worker is here: it says what it was given, then waits for the end of its input.
PROGRAM = """
import json, os, sys
facts = [os.getpid(), "torch" in sys.modules, sys.argv[1:], os.environ["OWN"], os.getcwd(), sys.path[:2], __name__]
print(json.dumps(facts), flush=True)
print("an error", file=sys.stderr, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("f")
    with process.forking_python(str(folder), {**os.environ, "OMP_NUM_THREADS": "1"}) as program:
        yield program


@contextlib.contextmanager
def client(python: str, folder: Path) -> Iterator["subprocess.Popen[str]"]:
    (folder / "program.py").write_text(PROGRAM)
    command = [python, str(folder / "program.py"), "--name", "a b"]
    environment = {**os.environ, "OWN": "1", "PYTHONPATH": "/first"}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdin=pipe, stdout=pipe, stderr=pipe
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def facts(running: "subprocess.Popen[str]") -> list[object]:
    assert running.stdout is not None
    content: list[object] = json.loads(running.stdout.readline())
    return content


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not Path(f"/proc/{pid}").exists()


def test_a_worker_is_given_what_its_client_was_and_begins_with_torch(python: str, tmp_path: Path) -> None:
    with client(python, tmp_path) as running:
        pid, *others = facts(running)
        assert others == [True, ["--name", "a b"], "1", str(tmp_path), [str(tmp_path), "/first"], "__main__"]
        assert pid != running.pid
        assert Path(f"/proc/{pid}/comm").read_text() == "ts-worker\n"
        _, errors = running.communicate("", timeout=60)
        assert errors == "an error\n"
        assert gone(int(str(pid)))


@pytest.mark.parametrize("stopped", [False, True], ids=["a worker that runs", "a worker that hangs"])
def test_a_worker_ends_with_its_client_and_the_client_with_it(python: str, tmp_path: Path, stopped: bool) -> None:
    with client(python, tmp_path) as running:
        pid = int(str(facts(running)[0]))
        if stopped:
            os.kill(pid, signal.SIGSTOP)
        running.kill()
        assert gone(pid)
    with client(python, tmp_path) as running:
        os.kill(int(str(facts(running)[0])), signal.SIGKILL)
        assert running.wait(timeout=20) != 0


def test_without_a_server_the_client_is_python(tmp_path: Path) -> None:
    with process.forking_python(str(tmp_path), os.environ) as python, client(python, tmp_path) as running:
        os.killpg(server_of(tmp_path), signal.SIGKILL)
        assert facts(running)[:2] == [running.pid, False]
        assert running.stderr is not None
        assert "The fork server has ended" in running.stderr.readline()


def server_of(folder: Path) -> int:
    """Return the process that holds the folder's guard, which has the server's session as an argument."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # of a process that ended meanwhile
            lines.append(path.read_bytes().split(b"\0"))
    return next(int(line[-3]) for line in lines if line[-2:-1] == [str(folder).encode()] and b"sh" in line)


def test_where_no_socket_can_be_it_is_python_itself(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    with process.forking_python(str(folder), os.environ) as python:
        assert python == sys.executable
    assert list(folder.iterdir()) == []
