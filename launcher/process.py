"""Process: TorchServe as a child, in a session and a temporary folder of its own, stopped without leftovers.

However the launcher ends, by SIGKILL too, so do Java and the workers, which a fork server starts (fork_server.py).

Its Java is started directly. The `torchserve` program in between would add a process that only waits, put the current
folder first on Java's class path, and end when a full disk does not take its log.
"""

import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib import util
from pathlib import Path

from launcher import resources, signals
from launcher.archive import Archive
from launcher.plan import Plan, fit_vmargs, make_plan, share_workers
from launcher.settings import CLASS_DATA, Settings, SetupError, java_home, java_program

_STOP_TIMEOUT_S = 20
_POLL_S = 0.02
# The gateway's two programs, and 12 of the largest bodies in its folder, which is in memory on most platforms.
GATEWAY_BYTES = 256_000_000
_MAIN_CLASS = "org.pytorch.serve.ModelServer"
_FORK_SERVER, _FORK_CLIENT = (Path(__file__).with_name(f"fork_{role}.py") for role in ("server", "client"))


@contextmanager
def running(
    settings: Settings, archives: Sequence[Archive], environment: Mapping[str, str]
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run TorchServe with these archives; yield it and its folder; stop it, and all that it started, on leaving."""
    plan = plan_for(len(archives), memory_bytes(settings))
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="visionserve-", ignore_cleanup_errors=True))
        variables = child_environment(settings, environment, folder, plan)
        # Untested with CUDA, whose state a fork must not share.
        gpu = any(archive.needs_gpu for archive in archives)
        python = sys.executable if gpu else stack.enter_context(forking_python(folder, variables))
        child = subprocess.Popen(
            command(settings, java_program(environment), folder, plan, archives, class_data(), python),
            env=variables,
            start_new_session=True,
            # Safe: no thread has been started yet that could hold a lock in the child.
            preexec_fn=signals.unblock,
        )
        try:
            with guard(child.pid, folder):
                yield child, Path(folder)
        finally:
            stop(child)


@contextmanager
def forking_python(folder: str, environment: Mapping[str, str]) -> Iterator[str]:
    """Run a fork server; yield a program that stands for Python and lets it fork, or Python where that cannot be."""
    program, address = Path(folder, "python"), str(Path(folder, "fork-server"))
    client = shlex.join([sys.executable, "-IS", str(_FORK_CLIENT), address])
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        try:
            program.write_text(f'#!/bin/sh\nexec {client} "$@"\n', encoding="utf-8")
            program.chmod(0o700)
            # Bound here, so that a client never comes too early.
            listener.bind(address)
            listener.listen()
        except OSError:  # no room, or too long a path for a socket
            program.unlink(missing_ok=True)
        if os.access(program, os.X_OK):  # not where the folder is mounted noexec
            server = subprocess.Popen(
                [sys.executable, str(_FORK_SERVER), str(listener.fileno())],
                env=environment,
                pass_fds=[listener.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=signals.unblock,
            )
        else:
            server = None
    # From here on only the server listens: without it a client is refused, and becomes Python.
    if server is None:
        yield sys.executable
        return
    try:
        with guard(server.pid, folder):
            yield str(program)
    finally:
        stop(server, timeout_s=0)


def memory_bytes(settings: Settings) -> int | None:
    """Return the limit for TorchServe and the launcher, or None: with a gateway beside them, what that leaves them.

    A container platform may be a small virtual machine without any limit on its processes: its memory is the limit.
    """
    limit = resources.memory_bytes()
    if not settings.gateway_port:
        return limit
    return max(0, (limit or resources.machine_memory_bytes()) - GATEWAY_BYTES)


def plan_for(models: int, limit: int | None) -> Plan:
    """Return the plan of that much memory and this machine, or this process's share of it, for that many models."""
    plan = make_plan(resources.cpus(), limit)
    return plan if models <= 1 else share_workers(plan, models, limit or resources.machine_memory_bytes())


@contextmanager
def guard(session: int, folder: str) -> Iterator[None]:
    """End a session's processes and remove its folder if this process is killed meanwhile.

    A shell in a session of its own waits for the end of its input, whose other end is here and nowhere else: the kernel
    closes it however the launcher ends. Unlike PR_SET_PDEATHSIG that reaches the workers too, also while they start.
    """
    script = 'read -r _; kill -s KILL -- "-$1"; rm -rf -- "$2"'
    shell = subprocess.Popen(
        ["/bin/sh", "-c", script, "sh", str(session), folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        shell.kill()
        shell.communicate()


def command(
    settings: Settings,
    java: str,
    folder: str,
    plan: Plan,
    archives: Sequence[Archive] = (),
    options: Sequence[str] = (),
    python: str = sys.executable,
) -> list[str]:
    """Return TorchServe's command line, as its own program would put it together (ts/model_server.py).

    ``archives`` are loaded in their order, ``options`` are Java's, beside those of the configuration; ``python`` is the
    program that runs workers.
    """
    vmargs = fit_vmargs(settings.properties.get("vmargs", ""), plan)
    return [
        *[java, f"-Dmodel_server_home={_home()}", f"-Djava.io.tmpdir={folder}", *options, *vmargs.split()],
        *["-cp", class_path(), _MAIN_CLASS, "--python", python],
        *["-f", str(settings.config), "-s", str(settings.model_store), "-ncs"],
        *(["-m", *(archive.path.name for archive in archives)] if archives else []),
    ]


def class_path() -> str:
    """Return where Java finds TorchServe."""
    return str(_home() / "ts" / "frontend" / "*")


def class_data(file: Path = CLASS_DATA) -> list[str]:
    """Return the options by which Java starts faster (jvm_cds.py); none without the file.

    A file that does not fit is not a failure, and Java's message about it would not be JSON as the rest of the log is.
    """
    return [f"-XX:SharedArchiveFile={file}", "-Xlog:cds*=off"] if file.is_file() else []


def _home() -> Path:
    """Return the folder in which TorchServe is installed, without importing it."""
    package = util.find_spec("ts")
    if package is None or package.origin is None:
        raise SetupError("TorchServe is not installed: `make setup` installs it.")
    return Path(package.origin).parents[1]


def child_environment(settings: Settings, environment: Mapping[str, str], folder: str, plan: Plan) -> dict[str, str]:
    """Return the child's environment: everything that TorchServe writes goes to ``folder``."""
    home = java_home(environment)
    path = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    folders = dict.fromkeys(("LOG_LOCATION", "METRICS_LOCATION", "TEMP", "TMPDIR"), folder)
    java = {"JAVA_HOME": str(home)} if home else {}
    # TorchServe's own variable would win over the configuration that is passed.
    inherited = {name: value for name, value in environment.items() if name != "TS_CONFIG_FILE"}
    return {**_defaults(settings, plan), **inherited, **settings.overrides, **folders, **java, "PATH": path}


def _defaults(settings: Settings, plan: Plan) -> dict[str, str]:
    """Return what holds unless the environment or the configuration says otherwise."""
    # torch would start a thread per core of the machine in each worker, whatever the quota.
    threads = {"OMP_NUM_THREADS": "1"}
    if "default_workers_per_model" in settings.properties:
        return threads
    return threads | {"TS_DEFAULT_WORKERS_PER_MODEL": str(plan.workers)}


def stop(child: subprocess.Popen[bytes], timeout_s: float = _STOP_TIMEOUT_S) -> None:
    """End TorchServe: its Java, which ends the workers; then whatever of its session is left."""
    with suppress(ProcessLookupError):
        child.terminate()
    deadline = time.monotonic() + timeout_s
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
