"""Gateway: `python -m gateway run` as a child, where one container is the whole service (`serve --gateway`).

Its options are checked while TorchServe loads. It starts when the service is ready, so that an open port is a ready
service, and ends first: it answers what it has taken, and nothing new arrives.
"""

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from launcher import process, releases
from launcher.settings import HOST, Settings

# What the launcher's own ports and PORT state; of the rest that follows from its settings a variable may say otherwise.
FIXED = ("port", "inference", "status", "records")
_POLL_S = 0.05


class Gateway:
    """The child: first it checks its options, then it serves."""

    def __init__(self, options: list[str], folder: str, stack: ExitStack) -> None:
        self._options, self._folder, self._stack = options, folder, stack
        self.serves = False
        self.child = self._start("render", f"--out={folder}", f"--temp={folder}")

    def serve(self) -> None:
        """Open the port; what the check says is waited for."""
        if self.child.wait() == 0:
            # Makes its own folder there. Not in ours: a socket's path has at most 107 characters.
            self.child = self._start("run", f"--temp={tempfile.gettempdir()}")
            self._stack.enter_context(process.guard(self.child.pid, self._folder))
            self.serves = True

    def failure(self) -> str:
        """Return what ended it, or ""."""
        code = self.child.poll()
        if self.serves and code is not None:
            return f"The gateway exited unexpectedly (exit code {code}); see its log above."
        return "The gateway cannot start; its reason is above." if code else ""

    def finish(self, deadline: float, interrupted: Callable[[float], bool]) -> bool:
        """Let it answer what it has taken, until its own time limit or the deadline; False when interrupted."""
        if self.serves and self.child.poll() is None:
            self.child.send_signal(signal.SIGQUIT)
        while self.serves and self.child.poll() is None and time.monotonic() < deadline:
            if interrupted(_POLL_S):
                return False
        return True

    def _start(self, *words: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "gateway", *words, *self._options]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)


@contextmanager
def prepared(settings: Settings, environment: Mapping[str, str]) -> Iterator[Gateway | None]:
    """Yield the gateway, if the settings want one; end it on leaving."""
    if not settings.gateway_port:
        yield None
        return
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-", ignore_cleanup_errors=True))
        gateway = Gateway(options(settings, environment), folder, stack)
        try:
            yield gateway
        finally:
            process.stop(gateway.child)


def options(settings: Settings, environment: Mapping[str, str]) -> list[str]:
    """Return the gateway's options that follow from the launcher's; the others are in GATEWAY_... variables."""
    memory = process.memory_bytes(settings)
    values = {
        "host": "::",
        "port": settings.gateway_port,
        "inference": f"{HOST}:{settings.ports['port']}",
        "status": f"{HOST}:{settings.status_port}",
        "records": f"{HOST}:{settings.access_port}" if settings.access_port else "off",
        "releases-file": settings.model_store / releases.FILE_NAME,
        **({"server-memory": memory} if memory else {}),
    }
    return [f"--{name}={value}" for name, value in values.items() if not environment.get(variable(name))]


def variable(name: str) -> str:
    """Return the variable of one of the gateway's options."""
    return f"GATEWAY_{name.upper().replace('-', '_')}"
