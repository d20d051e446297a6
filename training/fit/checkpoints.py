"""Checkpoints that are complete, found again in a moved folder and never diverged; early stopping that resumes."""

import math
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from visionserve.errors import BundleError
from visionserve.files import atomic_write

DIVERGED = (
    "The training diverged: lower --optimizer.learning_rate (`python -m training lr-find` suggests one) or set "
    "--optimizer.clip, and train again with --resume none"
)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the old checkpoint, then replaces it.

    Lightning's own writes to the system's temporary folder: a move from there to another volume can be cut short.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:  # noqa: ARG002
        """Write ``checkpoint`` to ``path``, or nothing."""
        with atomic_write(Path(path)) as unfinished:
            torch.save(checkpoint, unfinished)


class BestCheckpoint(ModelCheckpoint):
    """Keeps the best epoch, also in a run whose folder was moved: there Lightning forgets the best score."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the score from the checkpoint of the best epoch in this run's folder."""
        best = Path(str(self.dirpath), f"{self.filename}{self.FILE_EXTENSION}")
        if not best.is_file():
            return
        states = torch.load(best, map_location="cpu", weights_only=True, mmap=True)["callbacks"]
        state = dict(states.get(self.state_key, state_dict))
        score = state["best_model_score"]
        state |= {"dirpath": self.dirpath, "best_model_path": str(best), "last_model_path": ""}
        state |= {"kth_best_model_path": str(best), "kth_value": score, "best_k_models": {str(best): score}}
        super().load_state_dict(state)


class DivergenceCheck(Callback):
    """Ends a run whose loss is not finite, before the epoch becomes a checkpoint."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Check the losses of the epoch. Lightning calls the checkpoints afterwards.

        Raises:
            BundleError: in all processes, which have the same losses.
        """
        for name in ("train/loss", "val/loss"):
            value = trainer.callback_metrics.get(name)
            if value is not None and not math.isfinite(float(value)):
                raise BundleError(f"the {name} of epoch {trainer.current_epoch} is {float(value)}. {DIVERGED}")


class ResumableEarlyStopping(EarlyStopping):
    """Early stopping that is remembered: resumed after it, a run does not train one more epoch."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Stop before the first epoch if the checkpoint says that patience had ended."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True
