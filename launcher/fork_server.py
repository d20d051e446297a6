"""Fork server: imports once what every worker imports, and forks a worker for each request of fork_client.py.

    Java --starts, in place of Python--> fork_client.py --arguments, environment, streams--> fork_server.py
                                              |                                                   | forks
                                              `- ends when the worker ends <-- a connection --> worker

Importing torch is most of a worker's start. A forked worker begins with it, and shares its memory with the others.
This is a program of its own, without the launcher's package: a worker takes its library from its archive.
"""

import contextlib
import fcntl
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

# The program that TorchServe runs as a worker; what it imports is shared.
_WORKER = "ts.model_service_worker"
_NAME = "ts-worker"
_MESSAGE_BYTES = 1 << 20
_STREAMS = (0, 1, 2)
_REQUEST_TIMEOUT_S = 5
FORKED = b"1"


def serve(listener: socket.socket) -> None:
    """Fork workers for requests at a socket; returns in each worker when it ends, and in the server never."""
    importlib.import_module(_WORKER)
    # The collector would write to, and so copy, every object that workers share with this process.
    gc.collect()
    gc.freeze()
    # No worker is waited for here.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        connection, _ = listener.accept()
        streams: list[int] = []
        with contextlib.suppress(OSError):  # a client that is gone, no process left: the client helps itself
            connection.settimeout(_REQUEST_TIMEOUT_S)
            message, streams, _, _ = socket.recv_fds(connection, _MESSAGE_BYTES, len(_STREAMS))
            if message and os.fork() == 0:
                break
        for stream in streams:
            os.close(stream)
        connection.close()
    listener.close()
    connection.settimeout(None)
    _run_worker(connection, streams, **json.loads(message))


def _run_worker(
    connection: socket.socket,
    streams: Sequence[int],
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: str,
) -> None:
    """Be the process that Java wanted to start."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, stream in zip(_STREAMS, streams, strict=True):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    # As Python puts it together when it starts: the program's folder, PYTHONPATH, the installed packages.
    paths = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [str(Path(arguments[0]).parent), *paths, *sys.path[1:]]
    importlib.invalidate_caches()
    # What ps and top show, as the command line is the server's.
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(_NAME, encoding="ascii")
    _end_with_client(connection)
    connection.send(FORKED)
    sys.argv = list(arguments)
    runpy.run_path(arguments[0], run_name="__main__")


def _end_with_client(connection: socket.socket) -> None:
    """Let the kernel kill this process, also while it hangs, when its client has ended: Java knows the client only."""
    fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(connection, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(connection, fcntl.F_SETFL, fcntl.fcntl(connection, fcntl.F_GETFL) | os.O_ASYNC)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
