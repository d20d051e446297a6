"""Checkpoints that survive: written whole, and a run that had ended early stays ended."""

from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.plugins.io import TorchCheckpointIO

from visionserve.files import atomic_write


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the old checkpoint, then takes its place.

    Lightning's own writes to the system's temporary folder: a move from there to another volume can be cut short.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:  # noqa: ARG002
        """Write ``checkpoint`` to ``path``, or nothing."""
        with atomic_write(Path(path)) as unfinished:
            torch.save(checkpoint, unfinished)


class ResumableEarlyStopping(EarlyStopping):
    """Early stopping that is remembered: resumed after it, a run does not train one more epoch."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Stop before the first epoch if the checkpoint says that patience had ended."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True
