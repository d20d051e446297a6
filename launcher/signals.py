"""Signals: SIGTERM, SIGINT and the end of children as something that the main thread can wait for.

The handlers do nothing; Python writes each signal's number to a socket, which is read where it is safe to act.
"""

import contextlib
import os
import select
import signal
import socket
from collections.abc import Iterator
from subprocess import Popen

STOP = (signal.SIGTERM, signal.SIGINT)


class Inbox:
    """The signals that have come in."""

    def __init__(self, receiver: socket.socket) -> None:
        self._receiver = receiver

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until a signal; return whether one asked to stop."""
        if not select.select([self._receiver], [], [], seconds)[0]:
            return False
        return any(number in STOP for number in self._receiver.recv(4096))


@contextlib.contextmanager
def inbox() -> Iterator[Inbox]:
    """Collect signals instead of being ended by them."""
    receiver, sender = socket.socketpair()
    with receiver, sender:
        sender.setblocking(False)
        before = {number: signal.signal(number, _noted) for number in (*STOP, signal.SIGCHLD)}
        descriptor = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        try:
            yield Inbox(receiver)
        finally:
            signal.set_wakeup_fd(descriptor)
            for number, handler in before.items():
                signal.signal(number, handler)


def reap(child: Popen[bytes]) -> None:
    """Bury dead processes that were left to this one, which is what process 1 of a container is for.

    ``child`` is left to `subprocess`, which wants to see its exit code.
    """
    with contextlib.suppress(ChildProcessError):
        while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if found.si_pid == child.pid:
                child.poll()
            else:
                os.waitpid(found.si_pid, 0)


def _noted(_number: int, _frame: object) -> None:
    """Do nothing; the number is in the socket."""
