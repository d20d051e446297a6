"""Ctrl-C and SIGTERM: a run ends at once, and prints how to resume it.

Nothing is saved on the way out. What the run needs is on disk, whole, since the end of the last epoch, and the epoch
that was begun will be repeated exactly; so being stopped and being killed differ by the message only.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(SystemExit):
    """The run was stopped by a signal; the exit status is 128 and the signal's number, as a shell has it."""

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)


class SignalListener(Callback):
    """Raises `Stopped` when a signal arrives.

    Lightning puts its own handlers in place when training begins; they would wait for the batch, and several processes
    for each other.
    """

    def __init__(self) -> None:
        self._process = os.getpid()

    def listen(self) -> None:
        """Put the handlers in place."""
        for signum in SIGNALS:
            signal.signal(signum, self._stop)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Take the signals back from Lightning."""
        self.listen()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:  # noqa: ARG002
        """End the processes that Lightning has started: they write nothing, and would wait for this one."""
        launcher: Any = trainer.strategy.launcher
        if isinstance(exception, Stopped) and launcher is not None:
            launcher.kill(signal.SIGKILL)
            launcher.procs.clear()  # so that nobody takes their end for a failure

    def _stop(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if os.getpid() == self._process:
            raise Stopped(signum)
        if signum == signal.SIGTERM:  # in a process that augments, which has inherited this handler
            os._exit(128 + signum)


@contextmanager
def stop_on_signals() -> Iterator[SignalListener]:
    """Yield a callback; within the block, Ctrl-C and SIGTERM raise `Stopped`."""
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    listener = SignalListener()
    listener.listen()
    try:
        yield listener
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
