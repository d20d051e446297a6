"""Signals: what asks the launcher to stop, and the end of child processes, as something the main thread waits for.

They are blocked while a `SignalQueue` is open, so they wait in the kernel until `sigtimedwait` takes them, and no code
runs at an unexpected moment. Threads inherit the mask, so it is opened before any is started; child processes inherit
it too and must call `unblock` before they run another program.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from subprocess import Popen

# A closed terminal, Ctrl-C, Ctrl-\, and what a platform sends.
STOP = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)


class SignalQueue:
    """The signals that have been received."""

    def __init__(self, stop: frozenset[signal.Signals]) -> None:
        self._stop = stop

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until a signal; return whether it asks to stop."""
        info = signal.sigtimedwait(self._stop | {signal.SIGCHLD}, seconds)
        return info is not None and info.si_signo in self._stop


@contextlib.contextmanager
def receive() -> Iterator[SignalQueue]:
    """Queue signals instead of being ended by them; one that nohup(1) made the process ignore stays ignored."""
    ignores_hangup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    stop = frozenset(number for number in STOP if number is not signal.SIGHUP or not ignores_hangup)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, stop | {signal.SIGCHLD})
    try:
        yield SignalQueue(stop)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock() -> None:
    """Undo the mask in a child process, before it becomes another program."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {*STOP, signal.SIGCHLD})


def reap_orphans(*children: Popen[bytes]) -> None:
    """Collect ended processes whose parents have ended before: the duty of process 1 of a container.

    The image has no init such as tini, so the launcher is process 1 there. ``children`` are left to `subprocess`, which
    needs their exit codes.
    """
    with contextlib.suppress(ChildProcessError):
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            child = next((child for child in children if child.pid == ended.si_pid), None)
            if child is None:
                os.waitpid(ended.si_pid, 0)
            else:
                child.poll()
