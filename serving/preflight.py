"""Preflight: everything that would make TorchServe fail obscurely later, said in one sentence now."""

import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from serving.settings import HOST, Settings, SetupError, java_program

PYTHONS = ((3, 11), (3, 12))
# An unpacked archive, sockets and logs, with room to spare.
FREE_BYTES = 300_000_000
_JAVA_TIMEOUT_S = 30


def check(settings: Settings, environment: Mapping[str, str]) -> None:
    """Raise SetupError for the first thing that stands in the way of a start."""
    check_python(sys.version_info[:2])
    check_archive(settings)
    check_disk(Path(tempfile.gettempdir()))
    check_java(java_program(environment))
    for option, port in settings.ports.items():
        check_port(option, port)


def check_python(version: tuple[int, int]) -> None:
    """Refuse a Python that TorchServe and its libraries were not tried with."""
    if version not in PYTHONS:
        wanted = " or ".join(".".join(map(str, known)) for known in PYTHONS)
        raise SetupError(f"Python {'.'.join(map(str, version))} is not supported: use Python {wanted}.")


def check_archive(settings: Settings) -> None:
    """Refuse to start without the archive."""
    if not settings.archive.is_file():
        raise SetupError(f"{settings.archive} is missing: build it with `make archive MODEL={settings.model}`.")


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


def check_port(option: str, port: int) -> None:
    """Refuse a port that something else listens on."""
    with socket.socket() as probe:
        # As TorchServe does: connections of a server that has just stopped do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            flag = "--" + option.replace("_", "-")
            raise SetupError(
                f"Port {port} is not free ({error.strerror}): stop what listens there or choose another with {flag}."
            ) from error
