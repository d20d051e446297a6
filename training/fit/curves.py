"""Writes a run's learning curves while it trains: curves.csv after every epoch, curves.png at most once a minute."""

import logging
import time
from collections.abc import Callable

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from training import distributed, plotting
from training.evaluation import curves
from training.fit.run import Run

PAUSE_S = 60.0  # drawing takes longer than some epochs do
_log = logging.getLogger(__name__)


class LearningCurves(Callback):
    """Adds a line per epoch; a resumed run goes on, and an epoch that it repeats replaces its line.

    Args:
        probe: validation accuracy (0-1) of the linear probe, if the run has one.
    """

    def __init__(self, run: Run, probe: float | None = None) -> None:
        self._run, self._probe = run, probe
        self._not_before = 0.0
        self._warned = False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Write the epoch's line; draw unless it was done a moment ago."""
        measured = trainer.callback_metrics  # in all processes, which compute it together
        # Of the body; that of the head is `optimizer.head_factor` times it.
        learning_rate = float(trainer.optimizers[0].param_groups[0]["lr"])
        row = {curves.EPOCH: float(trainer.current_epoch), "learning_rate": learning_rate}
        row |= {name: float(value) for name, value in measured.items() if name.startswith(("train/", "val/"))}
        self._try(lambda: self._add(row))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Draw the whole run."""
        self._try(self._draw)

    def _add(self, row: curves.Row) -> None:
        earlier = (old for old in curves.read(self._run.curves) if old[curves.EPOCH] < row[curves.EPOCH])
        curves.write(self._run.curves, [*earlier, row])
        if time.monotonic() >= self._not_before:
            self._draw()

    def _draw(self) -> None:
        rows = curves.read(self._run.curves)
        if rows:
            plotting.save(curves.figure(rows, self._probe), self._run.curves_plot)
        self._not_before = time.monotonic() + PAUSE_S

    def _try(self, action: Callable[[], None]) -> None:
        if not distributed.is_rank_zero():
            return
        try:
            action()
        except Exception as error:  # noqa: BLE001  # no figure is worth a training
            if not self._warned:
                _log.warning("the learning curves cannot be written (%s): the training goes on", error)
            self._warned = True
