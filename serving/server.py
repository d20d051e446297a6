"""The server: TorchServe as a child, in a session and a temporary folder of its own, stopped without leftovers."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from serving.settings import Settings, java_home

_STOP_TIMEOUT_S = 20
_POLL_S = 0.1
# Written by the `torchserve` program into the temporary folder: the process id of its Java.
_PID_FILE = ".model_server.pid"


@contextmanager
def running(settings: Settings, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run TorchServe with every archive of the model store; stop it, and all that it started, on leaving."""
    with tempfile.TemporaryDirectory(prefix="visionserve-", ignore_cleanup_errors=True) as folder:
        child = subprocess.Popen(
            command(settings), env=child_environment(settings, environment, folder), start_new_session=True
        )
        try:
            yield child
        finally:
            stop(child, Path(folder))


def command(settings: Settings) -> list[str]:
    """Return TorchServe's command line."""
    archives = sorted(path.name for path in settings.model_store.glob("*.mar"))
    return [
        *[sys.executable, "-m", "ts.model_server", "--start", "--foreground", "--ncs"],
        *["--ts-config", str(settings.config), "--model-store", str(settings.model_store)],
        *["--models", *archives],
    ]


def child_environment(settings: Settings, environment: Mapping[str, str], folder: str) -> dict[str, str]:
    """Return the child's environment: everything that TorchServe writes goes to ``folder``."""
    home = java_home(environment)
    path = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    places = dict.fromkeys(("LOG_LOCATION", "METRICS_LOCATION", "TEMP", "TMPDIR"), folder)
    java = {"JAVA_HOME": str(home)} if home else {}
    return {**environment, **settings.overrides, **places, **java, "PATH": path}


def stop(child: subprocess.Popen[bytes], folder: Path, timeout_s: float = _STOP_TIMEOUT_S) -> None:
    """End TorchServe: its Java first, which ends the workers; then whatever of its session is left."""
    with suppress(OSError, ValueError):
        os.kill(int((folder / _PID_FILE).read_text()), signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
