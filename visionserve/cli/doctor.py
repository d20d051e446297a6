"""`visionserve doctor`: everything that the service needs of this machine, one line each, with what mends it.

Looks and never changes anything. Exit code 1 when something must be mended.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import visionserve
from visionserve.cli import exit_codes, machine

LIBRARY = Path(visionserve.__file__).parent
HOUSE = LIBRARY.parent
PYTHONS = ("3.11", "3.12")
JAVAS = range(17, 22)
# TorchServe's three, its gRPC pair, and the status server.
PORTS = (8080, 8081, 8082, 7070, 7071, 8083)
# One worker with its engine, and Java: measured at 1.3 GB for two workers.
MEMORY_BYTES = 1_500_000_000
DISK_BYTES = 300_000_000
_TIMEOUT_S = 30
_LISTED = 4


@dataclass(frozen=True)
class Finding:
    """What was looked at, what was found, and what mends it where it is wrong."""

    topic: str
    found: str
    mend: str = ""

    def __str__(self) -> str:
        return f"{'mend' if self.mend else 'ok':<5} {self.topic:<10} {self.found}" + (
            f": {self.mend}" if self.mend else ""
        )


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "--archive", type=Path, default=Path("model_store/flowers.mar"), help="what shall be served (%(default)s)"
    )


def run(chosen: argparse.Namespace) -> int:
    """Print the findings and return the exit code."""
    found = list(findings(chosen.archive))
    for finding in found:
        print(finding)
    wrong = sum(bool(finding.mend) for finding in found)
    print(f"{wrong} of {len(found)} must be mended." if wrong else "All is well.")
    return exit_codes.REFUSED if wrong else exit_codes.OK


def findings(archive: Path) -> Iterator[Finding]:
    """Look at everything, one after the other."""
    gpus = _gpus()
    checks: list[Callable[[], Finding]] = [
        lambda: python(platform.python_version()),
        lambda: java(dict(os.environ)),
        lambda: libraries(HOUSE / "requirements" / "serve.txt"),
        cpu,
        lambda: memory(machine.memory_bytes()),
        lambda: gpu(gpus),
        lambda: disk(Path(tempfile.gettempdir())),
        *(lambda port=port: listening(port) for port in PORTS),
        lambda: packed(archive, bool(gpus)),
    ]
    for check in checks:
        yield check()


def python(version: str) -> Finding:
    """Python is one that TorchServe and its libraries were tried with."""
    right = version.rpartition(".")[0] in PYTHONS
    return Finding("python", version, "" if right else f"use {' or '.join(PYTHONS)}")


def java(environment: dict[str, str]) -> Finding:
    """Java runs, in a version that TorchServe was tried with."""
    mend = "run `make setup`, which brings one, or set JAVA_HOME to a Java 17"
    beside = Path(sys.executable).with_name("java")
    home = environment.get("JAVA_HOME")
    program = str(Path(home, "bin", "java")) if home else str(beside) if beside.exists() else shutil.which("java")
    if program is None:
        return Finding("java", "none", mend)
    try:
        done = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("java", f"{program} does not run ({error})", mend)
    version = re.search(r'version "(\d+)[^"]*"', done.stderr)
    if done.returncode != 0 or version is None:
        return Finding("java", f"{program} does not run (exit code {done.returncode})", mend)
    return Finding("java", f"{version[0][9:-1]} ({program})", "" if int(version[1]) in JAVAS else mend)


def libraries(lock: Path) -> Finding:
    """The installed libraries are the locked ones."""
    if not lock.is_file():
        return Finding("libraries", "no lock file here to hold them against")
    wanted = _locked(lock.read_text())
    if wanted is None:
        return Finding("libraries", "packaging is missing", "run `make setup`")
    wrong = [f"{name} {_installed(name)} for {version}" for name, version in wanted if _installed(name) != version]
    if not wrong:
        return Finding("libraries", f"{len(wanted)} as locked")
    listed = ", ".join(wrong[:_LISTED]) + (", ..." if len(wrong) > _LISTED else "")
    return Finding("libraries", f"{len(wrong)} of {len(wanted)} are not as locked ({listed})", "run `make setup`")


def cpu() -> Finding:
    """How many cores may be used; TorchServe starts a worker on each."""
    allowed, present = machine.cores(), os.cpu_count() or 1
    return Finding("cpu", f"{allowed} of {present} cores may be used: as many workers")


def memory(free: int) -> Finding:
    """There is memory for Java and a worker."""
    mend = "" if free >= MEMORY_BYTES else f"{MEMORY_BYTES / 1e9:.1f} GB are needed; stop something or raise the limit"
    return Finding("memory", f"{free / 1e9:.1f} GB free", mend)


def gpu(names: list[str]) -> Finding:
    """Which GPUs there are; none is no mistake."""
    return Finding("gpu", ", ".join(names) or "none: serve an archive of the cpu profile")


def disk(folder: Path) -> Finding:
    """There is room where archives are unpacked."""
    free = shutil.disk_usage(folder).free
    mend = "" if free >= DISK_BYTES else f"{DISK_BYTES / 1e6:.0f} MB are needed; make room or set TMPDIR"
    return Finding("disk", f"{free / 1e9:.1f} GB free in {folder}", mend)


def listening(port: int) -> Finding:
    """A port is free, or the service itself has it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if _serves():
                return Finding(f"port {port}", "taken while the service runs")
            return Finding(f"port {port}", error.strerror or "taken", "stop what listens there, or choose another")
    return Finding(f"port {port}", "free")


def packed(archive: Path, has_gpu: bool) -> Finding:
    """The archive is there, whole, made for this machine and from these sources."""
    mend = f"build it with `make archive MODEL={archive.stem}`"
    if not archive.is_file():
        return Finding("archive", f"{archive} is missing", mend)
    try:
        with zipfile.ZipFile(archive) as content:
            card = json.loads(content.read("card.json"))
            library = {name: content.read(name) for name in content.namelist() if name.startswith("visionserve/")}
        name = f"{archive}: {card['name']} {card['version']} for {card['device']}"
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        return Finding("archive", f"{archive} is broken ({error})", mend)
    if card["device"] == "cuda" and not has_gpu:
        return Finding("archive", f"{name}, and there is no GPU", f"{mend} PROFILE=cpu")
    if any(not _same(HOUSE / path, packed) for path, packed in library.items()):
        return Finding("archive", f"{name}, packed from other sources than these", mend)
    return Finding("archive", name)


def _same(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content


def _locked(text: str) -> list[tuple[str, str]] | None:
    """Return names and versions of a lock file's entries that apply to this machine."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return None
    entries = [Requirement(line.split(" \\")[0]) for line in text.splitlines() if re.match(r"[A-Za-z0-9]", line)]
    applying = [entry for entry in entries if entry.marker is None or entry.marker.evaluate()]
    return [(entry.name, next(iter(entry.specifier)).version) for entry in applying]


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _gpus() -> list[str]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def _serves() -> bool:
    """Tell whether TorchServe answers on its port, which explains who has taken the others."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORTS[0]}/ping", timeout=2) as answer:
            return b"status" in answer.read(1000)
    except (OSError, urllib.error.URLError, ValueError):
        return False
