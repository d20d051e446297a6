"""Run nginx as a child of this process: it never outlives its parent, and never waits for a reader of its log.

    nginx --stdout, stderr--> pipes --a bounded buffer--> stdout, stderr of this process

nginx blocks while it writes its access log: a full pipe that nobody reads would stop every request. So it writes into
pipes that are read here; what this process cannot pass on is dropped and counted.
"""

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType

# To nginx: stop now, finish open requests and stop, read certificates again. A closed terminal (SIGHUP) ends it.
_FORWARDED = {
    signal.SIGINT: signal.SIGTERM,
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGHUP: signal.SIGTERM,
    signal.SIGQUIT: signal.SIGQUIT,
    signal.SIGUSR1: signal.SIGHUP,
}
_PR_SET_PDEATHSIG = 1
_BUFFER_BYTES = 1 << 20
_READ_BYTES = 65536
# A pipe that is writable takes this much without blocking.
_WRITE_BYTES = 4096
_POLL_S = 0.2
# At the end, for whoever reads late.
_FLUSH_S = 2
_FAILED = 1


class LogPump:
    """Passes lines from a pipe on to a file descriptor, without ever waiting for it."""

    def __init__(self, source: int, target: int) -> None:
        self.source = source
        self.dropped = 0
        self._target = target
        self._buffer = b""
        self._partial = b""
        os.set_blocking(source, False)

    def read(self) -> bool:
        """Take what the pipe has; False at its end."""
        try:
            chunk = os.read(self.source, _READ_BYTES)
        except BlockingIOError:
            return True
        lines, newline, self._partial = (self._partial + chunk).rpartition(b"\n")
        lines += newline
        if len(self._buffer) + len(lines) > _BUFFER_BYTES:
            self.dropped += lines.count(b"\n")
        else:
            self._buffer += lines
        return bool(chunk)

    def write(self) -> bool:
        """Pass on what the target takes now; True when nothing is left."""
        while self._buffer and _writable(self._target):
            try:
                written = os.write(self._target, self._buffer[:_WRITE_BYTES])
            except OSError:
                # Nobody will read it: a closed pipe, a full disk.
                self.dropped += self._buffer.count(b"\n")
                written = len(self._buffer)
            self._buffer = self._buffer[written:]
        return not self._buffer

    def report(self) -> None:
        """Say what was dropped, once there is room again."""
        if self.dropped and not self._buffer:
            say(f"{self.dropped} log lines were dropped because nobody read them.")
            self.dropped = 0


Watch = tuple[float, Callable[[int], None]]


def run(command: Sequence[str], started: Callable[[], None], watches: Sequence[Watch]) -> int:
    """Run nginx until it exits and return its exit code; signals to this process are forwarded to it.

    ``started`` is called once, each of ``watches`` every so many seconds with the process id.
    """
    parent = os.getpid()
    # Whatever started this may have blocked signals in it.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A group of its own, so that its workers can be ended where it cannot do that itself any more.
        process_group=0,
        preexec_fn=lambda: _end_with(parent),
    )

    def forward(number: int, _: FrameType | None) -> None:
        child.send_signal(_FORWARDED[signal.Signals(number)])

    for number in _FORWARDED:
        # `nohup` ignores SIGHUP on purpose, and a script SIGINT in what runs beside it.
        if number not in (signal.SIGHUP, signal.SIGINT) or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, forward)
    started()
    assert child.stdout is not None and child.stderr is not None  # noqa: S101  # pipes, as asked for above
    _pump(child, [LogPump(child.stdout.fileno(), 1), LogPump(child.stderr.fileno(), 2)], watches)
    code = child.wait()
    if code < 0:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        say(f"nginx was ended by {signal.Signals(-code).name}; its worker processes are ended too.")
        return _FAILED
    return code


def say(text: str) -> None:
    """Write a line for people; a full disk under standard error does not stop the gateway."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _pump(child: "subprocess.Popen[bytes]", pumps: Sequence[LogPump], watches: Sequence[Watch]) -> None:
    due = [time.monotonic() + seconds for seconds, _ in watches]
    with selectors.DefaultSelector() as selector:
        for pump in pumps:
            selector.register(pump.source, selectors.EVENT_READ, pump)
        while selector.get_map() and child.poll() is None:
            for key, _ in selector.select(_POLL_S):
                if not key.data.read():
                    selector.unregister(key.fileobj)
            for pump in pumps:
                pump.write()
                pump.report()
            for index, (seconds, watch) in enumerate(watches):
                if time.monotonic() > due[index]:
                    watch(child.pid)
                    due[index] = time.monotonic() + seconds
        deadline = time.monotonic() + _FLUSH_S
        for pump in pumps:
            pump.read()
            while not pump.write() and time.monotonic() < deadline:
                time.sleep(_POLL_S / 10)
            pump.report()


def _writable(descriptor: int) -> bool:
    with selectors.PollSelector() as selector:
        selector.register(descriptor, selectors.EVENT_WRITE)
        return bool(selector.select(0))


def _end_with(parent: int) -> None:
    """Let the kernel send this process SIGTERM when its parent has died, however that happened."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(_FAILED)
