"""Class data sharing (CDS): writes the classes of TorchServe, as Java has loaded them, to a file for faster starts.

 TorchServe runs once, without a model and on ports that are free, while Java lists
what it loads; from the list Java writes the file. It is of use to this Java and this TorchServe only: Java looks, and
does without where it does not fit.
"""

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from launcher import preflight, process, resources
from launcher.plan import make_plan
from launcher.settings import CLASS_DATA, HOST, PORTS, Settings, SetupError, java_program, resolve
from launcher.torchserve_api import NoAnswer, TorchServe

_START_TIMEOUT_S = 60.0
_POLL_S = 0.05
_NO_MODEL = "none"


def prepare(config: Path, environment: Mapping[str, str], target: Path = CLASS_DATA) -> bool:
    """Write the file unless there is one that fits; return whether it was written.

    Raises:
        SetupError: Java or TorchServe does not start, or the file cannot be written.
    """
    java = java_program(environment)
    preflight.check_java(environment)
    if fits(java, target):
        return False
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Java ends with a bus error on a file that is cut off, so the file appears in its place when it is whole.
        with tempfile.TemporaryDirectory(prefix=".new-", dir=target.parent) as folder:
            settings = resolve(_NO_MODEL, Path(folder), config, _free_ports(), environment)
            classes, written = Path(folder, "classes"), Path(folder, target.name)
            _list_classes(settings, environment, java, classes)
            _write(java, classes, written)
            written.replace(target)
    except OSError as error:
        raise SetupError(f"{target} cannot be written ({error.strerror}): let user {os.getuid()} do so.") from error
    return True


def fits(java: str, file: Path) -> bool:
    """Whether there is a file that this Java takes for this TorchServe."""
    strict = ["-Xshare:on", f"-XX:SharedArchiveFile={file}", "-cp", process.class_path(), "-version"]
    return file.is_file() and subprocess.run([java, *strict], capture_output=True, check=False).returncode == 0


def _free_ports() -> dict[str, int]:
    """Return a port for each of TorchServe's options that nothing listens on now."""
    with contextlib.ExitStack() as stack:
        probes = {option: stack.enter_context(socket.create_server((HOST, 0))) for option in PORTS}
        return {option: probe.getsockname()[1] for option, probe in probes.items()}


def _list_classes(settings: Settings, environment: Mapping[str, str], java: str, target: Path) -> None:
    """Run TorchServe for a moment and ask of it what a start and a first request ask; Java lists what it loads."""
    plan = make_plan(resources.cpus(), resources.memory_bytes())
    folder = str(target.parent)
    child = subprocess.Popen(
        process.command(settings, java, folder, plan, (), [f"-XX:DumpLoadedClassList={target}"]),
        env=process.child_environment(settings, environment, folder, plan),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        torchserve = TorchServe(settings, target.parent, secret="", images={_NO_MODEL: b""})
        _await(torchserve, child)
        torchserve.describe(_NO_MODEL)
        with contextlib.suppress(NoAnswer):
            torchserve.predict(_NO_MODEL, _START_TIMEOUT_S)
    finally:
        # At once: how it stops is nothing that a start needs, and takes it two seconds.
        process.stop(child, timeout_s=0)


def _await(torchserve: TorchServe, child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and child.poll() is None:
        with contextlib.suppress(NoAnswer):
            torchserve.metrics(_POLL_S)
            return
        time.sleep(_POLL_S)
    raise SetupError("TorchServe does not start without a model: `python -m launcher serve` with one says why.")


def _write(java: str, classes: Path, target: Path) -> None:
    options = ["-Xshare:dump", f"-XX:SharedClassListFile={classes}", f"-XX:SharedArchiveFile={target}"]
    java_run = subprocess.run(
        [java, *options, "-cp", process.class_path()], capture_output=True, text=True, check=False
    )
    if java_run.returncode != 0:
        raise SetupError(f"{java} cannot write class data: {java_run.stderr.strip() or java_run.stdout.strip()}")
