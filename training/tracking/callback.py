"""Figures of the best epoch: the confusion matrix, and images with their predicted labels."""

import logging
import time
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers.logger import Logger
from torch import Tensor

from training.evaluation import metrics, plots
from training.tracking import image_grid
from training.tracking.logger import TrackerLogger

PAUSE_S = 60.0  # drawing takes two seconds; an epoch on a large GPU may take no more

_log = logging.getLogger(__name__)


class ImageLogger(Callback):
    """Draws from the logits of the validation that has just been; nothing is computed twice."""

    def __init__(self, logger: Logger, labels: tuple[str, ...]) -> None:
        self._logger, self._labels = logger, labels
        self._logits: list[Tensor] = []
        self._best: tuple[Tensor, int, int] | None = None  # logits, epoch and step that are not drawn yet
        self._not_before = 0.0

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Forget the last validation."""
        self._logits = []

    def on_validation_batch_end(  # noqa: D102
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,
        *_: Any,
        **__: Any,
    ) -> None:
        self._logits.append(outputs.detach())

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Remember the logits of the best epoch, and draw them unless it was done a moment ago."""
        if not _improved(trainer):
            return
        # The step of this epoch's curves; each process validates all images.
        self._best = (torch.cat(self._logits).float().cpu(), trainer.current_epoch, trainer.global_step - 1)
        if time.monotonic() >= self._not_before:
            self._draw(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Draw the best epoch if that still waits."""
        self._draw(trainer)

    def _draw(self, trainer: Trainer) -> None:
        try:
            self._log_figures(trainer)
        except Exception as error:  # noqa: BLE001  # no figure is worth a training
            _log.warning("the figures of the best epoch cannot be drawn (%s): the training goes on", error)

    def _log_figures(self, trainer: Trainer) -> None:
        if self._best is None or not isinstance(self._logger, TrackerLogger):
            return
        logits, epoch, step = self._best
        self._best, self._not_before = None, time.monotonic() + PAUSE_S
        images = _images(trainer)
        targets = torch.tensor([target for _, target in images])
        counts = metrics.confusion(logits.numpy(), targets.numpy())
        answers = image_grid.Answers(logits.softmax(1), targets, self._labels, epoch)
        figures = {
            "confusion": plots.confusion_matrix(counts, self._labels),
            "samples": image_grid.samples(images, answers),
            "mistakes": image_grid.mistakes(images, answers),
        }
        for name, figure in figures.items():
            if figure is not None:
                self._logger.log_image(f"images/{name}", image_grid.pixels(figure), step)


def _images(trainer: Trainer) -> image_grid.LabelledImages:
    """Return the validation split as `training.data.datamodule.ImageDataModule` loads it, in the manifest's order."""
    dataset: image_grid.LabelledImages = trainer.val_dataloaders.dataset  # type: ignore[union-attr]
    return dataset


def _improved(trainer: Trainer) -> bool:
    """Whether this validation is the best so far; Lightning's checkpoints are written after it."""
    checkpoint = next(c for c in trainer.checkpoint_callbacks if getattr(c, "monitor", None))
    accuracy = trainer.callback_metrics["val/accuracy"]
    return bool(checkpoint.check_monitor_top_k(trainer, accuracy))  # type: ignore[attr-defined]
