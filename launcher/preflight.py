"""Preflight: everything that would make TorchServe fail obscurely later, said in one sentence now."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from launcher import archive as archives
from launcher import gpus
from launcher.archive import Archive
from launcher.settings import HOST, Settings, SetupError, java_program

PYTHONS = ((3, 11), (3, 12))
# An unpacked archive, sockets and logs, with room to spare.
FREE_BYTES = 300_000_000
_JAVA_TIMEOUT_S = 30


def check(settings: Settings, environment: Mapping[str, str]) -> list[Archive]:
    """Return the archives that will be served; raise SetupError for the first thing that stands in the way."""
    check_python(sys.version_info[:2])
    check_archive(settings)
    found = [archives.read(path) for path in settings.archives]
    check_devices(found, environment)
    check_disk(Path(tempfile.gettempdir()))
    check_java(java_program(environment))
    for option, port in settings.ports.items():
        check_port(option, port)
    check_port("status_port", settings.status_port, settings.status_host)
    check_port("access_port", settings.access_port, kind=socket.SOCK_DGRAM)
    return found


def check_python(version: tuple[int, int]) -> None:
    """Refuse a Python that TorchServe and its libraries were not tried with."""
    if version not in PYTHONS:
        wanted = " or ".join(".".join(map(str, known)) for known in PYTHONS)
        raise SetupError(f"Python {'.'.join(map(str, version))} is not supported: use Python {wanted}.")


def check_archive(settings: Settings) -> None:
    """Refuse to start without the archive."""
    try:
        with settings.archive.open("rb"):
            pass
    except FileNotFoundError as error:
        raise SetupError(
            f"{settings.archive} is missing: build it with `make archive MODEL={settings.model}`."
        ) from error
    except OSError as error:
        raise SetupError(
            f"{settings.archive} cannot be read ({error.strerror}): let user {os.getuid()} read it and its folder."
        ) from error


def check_devices(found: Sequence[Archive], environment: Mapping[str, str]) -> None:
    """Refuse an archive for a GPU where there is none: its workers would be started again and again."""
    wanting = [archive.name for archive in found if archive.needs_gpu]
    if wanting and gpus.count(gpus.listing(environment), environment.get(gpus.VISIBLE)) == 0:
        raise SetupError(
            f"{wanting[0]}.mar was packaged for a GPU and nvidia-smi finds none here: run it where it does, or package "
            "it for a processor with `make archive PROFILE=cpu`."
        )


def check_disk(folder: Path) -> None:
    """Refuse to start where the archive could not be unpacked."""
    free = shutil.disk_usage(folder).free
    if free < FREE_BYTES:
        raise SetupError(f"{folder} has {free / 1e6:.0f} MB left and {FREE_BYTES / 1e6:.0f} MB are needed: make room.")


def check_java(program: str) -> None:
    """Refuse a Java that does not run here, for instance one for another processor."""
    try:
        done = subprocess.run([program, "-version"], capture_output=True, timeout=_JAVA_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(f"{program} does not run ({error}): set JAVA_HOME to a Java 17.") from error
    if done.returncode != 0:
        raise SetupError(f"{program} does not run (exit code {done.returncode}): set JAVA_HOME to a Java 17.")


def check_port(option: str, port: int, host: str = HOST, kind: int = socket.SOCK_STREAM) -> None:
    """Refuse a port that something else listens on; 0 is none."""
    if port == 0:
        return
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as probe:
        if kind == socket.SOCK_STREAM:
            # As TorchServe does: connections of a server that has just stopped do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            flag = "--" + option.replace("_", "-")
            raise SetupError(
                f"Port {port} is not free ({error.strerror}): stop what listens there or choose another with {flag}."
            ) from error
