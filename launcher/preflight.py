"""Preflight: checks what would make TorchServe fail obscurely later; each failure is one sentence.

`python -m launcher serve` stops at the first failed check, `python -m launcher doctor` reports them all.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from launcher import archive as archives
from launcher import gateway_process, gpus, process, releases, resources
from launcher.addresses import bindable
from launcher.archive import Archive
from launcher.plan import LEAST_BYTES, LEAST_FREE_BYTES, make_plan, share_workers
from launcher.settings import HOST, Settings, SetupError, java_program

# As in pyproject.toml, which an image does not have.
OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 14)
OLDEST_JAVA = 17
# An unpacked archive, sockets and logs, with room to spare.
FREE_BYTES = 300_000_000
_JAVA_TIMEOUT_S = 30


@dataclass(frozen=True)
class Check:
    """A requirement; ``run`` returns what is there, and raises SetupError with what is wrong and what to do."""

    topic: str
    run: Callable[[], str]


def check(settings: Settings, environment: Mapping[str, str]) -> list[Archive]:
    """Return the archives that will be served; raise SetupError at the first check that fails."""
    for requirement in checks(settings, environment):
        requirement.run()
    return read_archives(settings)


def read_archives(settings: Settings) -> list[Archive]:
    """Return the archives of the store, the default version of each name first; SetupError when one is unusable."""
    try:
        stated = releases.load(settings.model_store / releases.FILE_NAME)
    except releases.ReleaseError as error:
        raise SetupError(str(error)) from error
    return archives.read_all(settings.archives, stated)


def checks(settings: Settings, environment: Mapping[str, str]) -> list[Check]:
    """Return all checks, in the order in which they are made."""
    limit = process.memory_bytes(settings)
    return [
        Check("python", partial(check_python, sys.version_info[:2])),
        Check("archive", partial(check_archives, settings)),
        Check("gpu", partial(check_gpu, settings, environment)),
        Check("cpu", partial(check_cpu, len(settings.archives), limit)),
        Check(
            "memory",
            partial(check_memory, limit, resources.available_memory_bytes(), len(settings.archives)),
        ),
        Check("disk", check_disk),
        Check("java", partial(check_java, environment)),
        *(Check(f"port {port}", partial(check_port, option, port)) for option, port in settings.ports.items()),
        Check(f"port {settings.status_port}", partial(_check_status_port, settings)),
        Check(
            f"port {settings.access_port}",
            partial(check_port, "access_port", settings.access_port, kind=socket.SOCK_DGRAM),
        ),
        Check("gateway", partial(check_gateway, settings, environment)),
    ]


def check_python(version: tuple[int, int]) -> str:
    """Require a Python that TorchServe and its libraries were tried with."""
    text = ".".join(map(str, version))
    if not OLDEST_PYTHON <= version <= NEWEST_PYTHON:
        oldest, newest = (".".join(map(str, supported)) for supported in (OLDEST_PYTHON, NEWEST_PYTHON))
        raise SetupError(f"Python {text} is not supported: use Python {oldest} to {newest}.")
    return text


def check_archives(settings: Settings) -> str:
    """Require the model's archive, and that every archive can be read and is that of the bundle beside it."""
    served = read_archives(settings)
    if settings.model not in (archive.name for archive in served):
        others = sorted({archive.name for archive in served})
        there = f", or name one that is there with --model: {', '.join(others)}" if others else ""
        raise SetupError(
            f"No archive in {settings.model_store} that user {os.getuid()} can read holds {settings.model}: build it "
            f"with `make archive MODEL={settings.model}`{there}."
        )
    for archive in served:
        archives.check_bundle(archive, archive.path.with_suffix(""), served)
    answering = [archive for index, archive in enumerate(served) if archive.name not in _names(served[:index])]
    return ", ".join(
        f"{archive.title} for {archive.card.get('device')}{_beside(archive, served)}" for archive in answering
    )


def _names(served: Sequence[Archive]) -> set[str]:
    return {archive.name for archive in served}


def _beside(default: Archive, served: Sequence[Archive]) -> str:
    others = [archive.version for archive in served if archive.name == default.name and archive is not default]
    return f" (it answers; beside it {', '.join(others)})" if others else ""


def check_gpu(settings: Settings, environment: Mapping[str, str]) -> str:
    """Refuse an archive for a GPU where there is none: its workers would be started again and again."""
    listing = gpus.listing(environment)
    usable = gpus.count(listing, environment.get(gpus.VISIBLE))
    if usable == 0:
        _require_no_gpu(read_archives(settings))
        return "none; the archives need none"
    return ", ".join(re.findall(r"(?m)^GPU \d+: (.+?)(?: \(UUID|$)", listing)[:usable])


def _require_no_gpu(served: Sequence[Archive]) -> None:
    for archive in served:
        if archive.needs_gpu:
            raise SetupError(
                f"{archive.path.name} was packaged for a GPU and nvidia-smi finds none here: run it where it does, or "
                "package it for a processor with `make archive PROFILE=cpu`."
            )


def check_cpu(models: int = 1, limit: int | None = None) -> str:
    """Report the cores and the workers that follow; any number will do."""
    workers = process.plan_for(models, limit).workers
    return f"{resources.cpus():g} of {os.cpu_count()} cores may be used, workers per CPU model: {workers}"


def check_memory(limit: int | None, available: int, models: int = 1) -> str:
    """Require memory for Java and one worker of each model, under the container's limit; for one worker, free now."""
    least = make_plan(resources.cpus(), limit)
    least = share_workers(least, models, 0) if models > 1 else least
    if limit is not None and models > 1 and least.total_bytes > limit:
        raise SetupError(
            f"The memory limit is {limit / 1e6:.0f} MB, and Java and a worker for each of {models} archives need "
            f"{least.total_bytes / 1e6:.0f} MB: raise the limit or move archives away."
        )
    if limit is not None and limit < LEAST_BYTES:
        raise SetupError(
            f"The memory limit is {limit / 1e6:.0f} MB, and Java and one worker need {LEAST_BYTES / 1e6:.0f} MB: "
            "raise the limit."
        )
    if available < LEAST_FREE_BYTES:
        raise OccupiedError(
            f"{available / 1e6:.0f} MB of memory are free; Java and one worker need {LEAST_FREE_BYTES / 1e6:.0f}: "
            "stop another program or raise the limit."
        )
    return f"{available / 1e9:.1f} GB free" + ("" if limit is None else f", limit {limit / 1e9:.1f} GB")


def check_disk(folder: Path | None = None) -> str:
    """Require a temporary folder that can be written, and room in it to unpack the archive."""
    try:
        folder = folder or Path(tempfile.gettempdir())
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free
    except OSError as error:
        raise SetupError(
            f"Found no temporary folder to write to ({error.strerror or error}): set TMPDIR to one that user "
            f"{os.getuid()} may write."
        ) from error
    if free < FREE_BYTES:
        raise SetupError(
            f"{folder} has {free / 1e6:.0f} MB left and {FREE_BYTES / 1e6:.0f} MB are needed: make room or set TMPDIR."
        )
    return f"{free / 1e9:.1f} GB free in {folder}"


def check_java(environment: Mapping[str, str]) -> str:
    """Require a Java that runs here and is new enough for TorchServe."""
    program, remedy = java_program(environment), f"set JAVA_HOME to a Java {OLDEST_JAVA}."
    try:
        process = subprocess.run(
            [program, "-version"], capture_output=True, text=True, timeout=_JAVA_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(f"{program} does not run ({error}): {remedy}") from error
    if process.returncode != 0:
        raise SetupError(f"{program} does not run (exit code {process.returncode}): {remedy}")
    version = re.search(r'version "((\d+)[^"]*)"', process.stderr)
    if version is None:
        raise SetupError(f"{program} does not state its version: {remedy}")
    if int(version[2]) < OLDEST_JAVA:
        raise SetupError(f"{program} is Java {version[1]}, which is too old: {remedy}")
    return f"{version[1]} ({program})"


def _check_status_port(settings: Settings) -> str:
    return check_port("status_port", settings.status_port, bindable(settings.status_host))


def check_gateway(settings: Settings, environment: Mapping[str, str]) -> str:
    """Require nginx, and for the gateway a port that is none of TorchServe's, as it listens at every address."""
    if settings.gateway_port == 0:
        return "off"
    for name in gateway_process.FIXED:
        if environment.get(gateway_process.variable(name)):
            raise SetupError(
                f"{gateway_process.variable(name)} has no effect with --gateway: the port is PORT, the addresses are "
                "the launcher's; unset it."
            )
    if shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])) is None:
        raise SetupError("The gateway needs nginx: on Debian, `apt-get install nginx-light`.")
    if settings.gateway_port in (*settings.ports.values(), settings.status_port):
        raise SetupError(
            f"PORT is {settings.gateway_port}, which TorchServe or the status server has: set another, or "
            "VISIONSERVE_PORT_OFFSET to move theirs."
        )
    return check_port("gateway", settings.gateway_port, bindable("::"), choose="PORT")


def check_port(option: str, port: int, host: str = HOST, kind: int = socket.SOCK_STREAM, choose: str = "") -> str:
    """Require a port that nothing else listens on; 0 is off. ``choose`` is what states it, if not its option."""
    if port == 0:
        return "off"
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as probe:
        if host == "::":
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if kind == socket.SOCK_STREAM:
            # As TorchServe does: connections of a server that has just stopped do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            flag = choose or "--" + option.replace("_", "-")
            raise OccupiedError(
                f"Port {port} is not free ({error.strerror}): stop what listens there or choose another with {flag}."
            ) from error
    return "free"


class OccupiedError(SetupError):
    """Something is in use, perhaps by a service that runs already."""
