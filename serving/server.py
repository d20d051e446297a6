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

from serving import limits
from serving.limits import Plan
from serving.settings import Settings, java_home

_STOP_TIMEOUT_S = 20
_POLL_S = 0.1
# Written by the `torchserve` program into the temporary folder: the process id of its Java.
_PID_FILE = ".model_server.pid"


@contextmanager
def running(settings: Settings, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run TorchServe with every archive of the model store; stop it, and all that it started, on leaving."""
    with tempfile.TemporaryDirectory(prefix="visionserve-", ignore_cleanup_errors=True) as folder:
        plan = limits.plan(limits.cpus(), limits.memory_bytes())
        config = Path(folder, settings.config.name)
        config.write_text(configuration(settings, plan), encoding="utf-8")
        child = subprocess.Popen(
            command(settings, config),
            env=child_environment(settings, environment, folder, plan),
            start_new_session=True,
        )
        try:
            yield child
        finally:
            stop(child, Path(folder))


def command(settings: Settings, config: Path) -> list[str]:
    """Return TorchServe's command line."""
    return [
        *[sys.executable, "-m", "ts.model_server", "--start", "--foreground", "--ncs"],
        *["--ts-config", str(config), "--model-store", str(settings.model_store)],
        *["--models", *(path.name for path in settings.archives)],
    ]


def configuration(settings: Settings, plan: Plan) -> str:
    """Return config.properties with the JVM cut to the plan: its options can be given in no other way."""
    vmargs = limits.fit_vmargs(settings.properties.get("vmargs", ""), plan)
    return "".join(f"{key}={value}\n" for key, value in {**settings.properties, "vmargs": vmargs}.items())


def child_environment(settings: Settings, environment: Mapping[str, str], folder: str, plan: Plan) -> dict[str, str]:
    """Return the child's environment: everything that TorchServe writes goes to ``folder``."""
    home = java_home(environment)
    path = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    places = dict.fromkeys(("LOG_LOCATION", "METRICS_LOCATION", "TEMP", "TMPDIR"), folder)
    java = {"JAVA_HOME": str(home)} if home else {}
    # TorchServe's own variable would win over the configuration that is passed.
    kept = {name: value for name, value in environment.items() if name != "TS_CONFIG_FILE"}
    return {**_defaults(settings, plan), **kept, **settings.overrides, **places, **java, "PATH": path}


def _defaults(settings: Settings, plan: Plan) -> dict[str, str]:
    """Return what holds unless the environment or the configuration says otherwise."""
    # torch would start a thread per core of the machine in each worker, whatever the quota.
    threads = {"OMP_NUM_THREADS": "1"}
    if "default_workers_per_model" in settings.properties:
        return threads
    return threads | {"TS_DEFAULT_WORKERS_PER_MODEL": str(plan.workers)}


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
