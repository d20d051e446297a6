"""How far a run is: Lightning's bars on a terminal, and in a log, where they would be pages, a line per epoch."""

import logging
import sys
import time

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, TQDMProgressBar

from training import distributed

_REFRESH_BATCHES = 20
_FIGURES = ("train/loss", "val/loss", "val/accuracy")
_log = logging.getLogger(__name__)


def progress() -> Callback:
    """Return the callback that shows how far a run is, where standard output leads."""
    return TQDMProgressBar(refresh_rate=_REFRESH_BATCHES) if sys.stdout.isatty() else EpochLines()


class EpochLines(Callback):
    """Logs a line after every epoch: its number, its losses, its validation accuracy and its time."""

    def __init__(self) -> None:
        self._began = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Take the time."""
        self._began = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Log the line; an epoch is validated before it ends."""
        measured = trainer.callback_metrics  # in all processes, which compute it together
        figures = ", ".join(f"{name} {float(measured[name]):.4f}" for name in _FIGURES if name in measured)
        if distributed.is_rank_zero():
            seconds = time.monotonic() - self._began
            _log.info("epoch %d of %s: %s, %.0f s", trainer.current_epoch + 1, trainer.max_epochs, figures, seconds)
