"""The total time of uploads: what nginx does with a connection's number between a look and the next step."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import psutil
import pytest

from gateway.slow_uploads import SlowUploads

PORT = 8000
CLIENT = ("127.0.0.1", 50000)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as entered:
        yield entered


def stage(stack: ExitStack) -> int:
    """A connection between two stages, by the path of a socket, as its peer's name is a text."""
    path = str(Path(stack.enter_context(TemporaryDirectory())) / "places")
    listener = stack.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(path)
    listener.listen()
    connection = stack.enter_context(socket.socket(socket.AF_UNIX))
    connection.connect(path)
    return connection.fileno()


def file(stack: ExitStack) -> int:
    reader, writer = os.pipe()
    stack.callback(os.close, reader)
    stack.callback(os.close, writer)
    return reader


def unconnected(stack: ExitStack) -> int:
    return stack.enter_context(socket.socket()).fileno()


def closed(_: ExitStack) -> int:
    return 1 << 19


@pytest.mark.parametrize("now", [stage, file, unconnected, closed])
def test_a_number_that_is_something_else_by_now_is_passed_over(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch, now: Callable[[ExitStack], int]
) -> None:
    connection = SimpleNamespace(
        status=psutil.CONN_ESTABLISHED, laddr=SimpleNamespace(port=PORT), raddr=CLIENT, fd=now(stack)
    )
    worker = SimpleNamespace(pid=os.getpid(), net_connections=lambda _: [connection])
    monkeypatch.setattr(psutil, "Process", lambda _: SimpleNamespace(children=lambda: [worker]))
    open_before = open_files()
    assert SlowUploads([PORT], total_s=0, pause_s=0).end(master=1) == 0
    assert open_files() == open_before


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
