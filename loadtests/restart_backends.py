"""Backends: a service twice behind a load balancer, visionserve or TorchServe alone, each stopped and started again.

The load balancer removes a backend a moment after its signal to stop, as in a cluster, whose endpoints lag behind.
"""

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from loadtests.benchmark.server import free_port, free_ports
from loadtests.benchmark.services import java_home

ROOT = Path(__file__).resolve().parents[1]
_READY_S, _STOP_S, _POLL_S, _LISTEN_S = 300, 120, 0.1, 60
_PORTS = ("", "management-", "metrics-", "grpc-", "grpc-management-", "status-", "access-")


class BackendError(Exception):
    """A backend or the load balancer did not start or stop; the message says which and shows its log."""


class Backend(Protocol):
    """A service that can be restarted at the same port."""

    port: int

    def start(self) -> None: ...  # noqa: D102
    def ready(self) -> bool: ...  # noqa: D102
    def ask_to_stop(self) -> None: ...  # noqa: D102
    def wait_for_end(self) -> None: ...  # noqa: D102
    def log_tail(self) -> str: ...  # noqa: D102


class _Process:
    """A child with a log and a folder of its own."""

    def __init__(self, folder: Path, directory: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._directory = folder, directory
        self._child: subprocess.Popen[bytes] | None = None

    def launch(self, command: list[str], environment: Mapping[str, str]) -> None:
        with (self._folder / "log").open("ab") as stream:
            self._child = subprocess.Popen(
                command,
                cwd=self._directory,
                env={**os.environ, **environment},
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )

    def signal(self, number: int) -> None:
        if self._child is not None:
            self._child.send_signal(number)

    def wait(self) -> None:
        """Wait for the end; whatever is left of its session is killed."""
        if self._child is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(_STOP_S)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()

    def log_tail(self) -> str:
        return (self._folder / "log").read_text("utf-8", "replace")[-2000:]


class Visionserve:
    """`python -m launcher serve`, stopped by SIGTERM."""

    def __init__(self, store: Path, model: str, folder: Path, drain_delay_s: float) -> None:
        ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        self.port, self._status = ports[""], ports["status-"]
        self._process = _Process(folder, ROOT)
        self._command = [sys.executable, "-m", "launcher", "serve", f"--model-store={store}", f"--model={model}"]
        self._command += [f"--{option}port={port}" for option, port in ports.items()]
        self._command += [f"--drain-delay={drain_delay_s}"]

    def start(self) -> None:
        """Start it."""
        self._process.launch(self._command, {})

    def ready(self) -> bool:
        """Ask its readiness."""
        return _status("GET", self._status, "/readyz", b"") == http.client.OK

    def ask_to_stop(self) -> None:
        """Send the signal that `docker stop` and a cluster send."""
        self._process.signal(signal.SIGTERM)

    def wait_for_end(self) -> None:
        """Wait until it has ended."""
        self._process.wait()

    def log_tail(self) -> str:
        """Return the end of its log."""
        return self._process.log_tail()


class TorchServe:
    """TorchServe alone with the same archive and its own defaults, stopped by `torchserve --stop`."""

    def __init__(self, store: Path, model: str, folder: Path, image: bytes) -> None:
        names = ("inference", "management", "metrics", "grpc_inference", "grpc_management")
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.port = ports["inference"]
        self._folder = folder
        self._path, self._image = f"/predictions/{model}", image
        # Not in visionserve's folder: TorchServe would read its log4j2.xml there.
        self._process = _Process(folder, folder)
        config = folder / "config.properties"
        lines = [f"{name}_address=http://127.0.0.1:{ports[name]}" for name in names[:3]]
        lines += [f"{name}_port={ports[name]}" for name in names[3:]]
        lines += [f"load_models={model}.mar", "disable_token_authorization=true"]
        config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self._torchserve = [sys.executable, "-m", "ts.model_server"]
        self._start = ["--start", "--foreground", "--ncs", "--ts-config", str(config), "--model-store", str(store)]
        self._environment = _torchserve_environment(folder)

    def start(self) -> None:
        """Start it."""
        self._process.launch([*self._torchserve, *self._start], self._environment)

    def ready(self) -> bool:
        """Ask for a prediction: its health endpoint is not reliable."""
        return _status("POST", self.port, self._path, self._image) == http.client.OK

    def ask_to_stop(self) -> None:
        """Run `torchserve --stop`."""
        self._stopping = subprocess.Popen(
            [*self._torchserve, "--stop"],
            cwd=self._folder,
            env={**os.environ, **self._environment},
            stdout=subprocess.DEVNULL,
        )

    def wait_for_end(self) -> None:
        """Wait until it has ended."""
        self._stopping.wait(_STOP_S)
        self._process.wait()

    def log_tail(self) -> str:
        """Return the end of its log."""
        return self._process.log_tail()


class Balancer:
    """nginx in front of backends; a POST that one backend has received is never sent to another."""

    def __init__(self, folder: Path, ports: Collection[int]) -> None:
        program = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
        if program is None:
            raise BackendError("nginx is missing: install the Debian package nginx-light")
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._folder, self._ports = folder, ports
        self._command = [program, "-p", str(folder), "-c", "nginx.conf", "-e", "error.log"]
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it with every backend, and wait until it listens; raises BackendError."""
        self._write(())
        self._child = subprocess.Popen(self._command, cwd=self._folder)
        deadline = time.monotonic() + _LISTEN_S
        while not _listens(self.port):
            if self._child.poll() is not None or time.monotonic() > deadline:
                log = (self._folder / "error.log").read_text("utf-8", "replace")[-2000:]
                raise BackendError(f"nginx does not listen on port {self.port}:\n{log}")
            time.sleep(_POLL_S)

    def exclude(self, *ports: int) -> None:
        """Send new requests to the other backends only; requests under way end where they are."""
        self._write(ports)
        if self._child is not None:
            self._child.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """Stop it when everything under way has been answered."""
        if self._child is not None:
            self._child.send_signal(signal.SIGQUIT)
            self._child.wait(_STOP_S)

    def _write(self, out: Collection[int]) -> None:
        servers = "\n".join(
            f"        server 127.0.0.1:{port} max_fails=0{' down' if port in out else ''};" for port in self._ports
        )
        folders = "\n".join(
            f"    {kind}_temp_path {self._folder}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        text = _NGINX.format(servers=servers, folders=folders, port=self.port, folder=self._folder)
        (self._folder / "nginx.conf").write_text(text, encoding="utf-8")


# Client connections end with each answer: whether a kept-alive one survives a reload is not what is measured here.
_NGINX = """\
worker_processes 1;
daemon off;
pid {folder}/pid;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    keepalive_timeout 0;
    client_max_body_size 16m;
    client_body_buffer_size 16m;
{folders}
    upstream service {{
{servers}
        keepalive 8;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://service;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"""


@contextlib.contextmanager
def balanced(backends: Collection[Backend], balancer: Balancer) -> Iterator[None]:
    """Run backends behind a balancer; on leaving, all of them are gone."""
    try:
        for backend in backends:
            backend.start()
        for backend in backends:
            wait_until_ready(backend)
        balancer.start()
        yield
    finally:
        balancer.stop()
        for backend in backends:
            backend.ask_to_stop()
        for backend in backends:
            backend.wait_for_end()


def wait_until_ready(backend: Backend) -> None:
    """Wait for a backend's readiness; raises BackendError."""
    deadline = time.monotonic() + _READY_S
    while not backend.ready():
        if time.monotonic() > deadline:
            raise BackendError(f"a backend was not ready within {_READY_S} s:\n{backend.log_tail()}")
        time.sleep(_POLL_S)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="restarts-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _torchserve_environment(folder: Path) -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    folders = dict.fromkeys(("LOG_LOCATION", "METRICS_LOCATION", "TEMP", "TMPDIR"), str(folder))
    return {**folders, **java_home(), "PATH": path, "OMP_NUM_THREADS": "1"}


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _status(method: str, port: int, path: str, body: bytes) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, {"Content-Type": "application/octet-stream"})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
