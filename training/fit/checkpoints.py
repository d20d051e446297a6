"""Checkpoints that are complete, found again in a moved folder and never diverged; early stopping that resumes."""

import math
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from visionserve.errors import BundleError
from visionserve.files import atomic_write

LOSS = "val/loss"
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
    """Keeps the best epoch: of equal accuracies, of which few validation images give many, that of the lowest loss.

    Also in a run whose folder was moved: there Lightning forgets the best score.
    """

    _best_loss = math.inf

    @property
    def best_loss(self) -> float:
        """The validation loss of the best epoch."""
        return self._best_loss

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Whether this validation is better than the best so far."""
        if current is not None and self.best_model_score is not None and bool(current == self.best_model_score):
            lower = float(trainer.callback_metrics[LOSS]) < self._best_loss
            return trainer.strategy.reduce_boolean_decision(lower)
        return super().check_monitor_top_k(trainer, current)

    def _update_best_and_save(self, current: Tensor, trainer: Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        self._best_loss = float(trainer.callback_metrics[LOSS])
        super()._update_best_and_save(current, trainer, monitor_candidates)

    def state_dict(self) -> dict[str, Any]:
        """Return Lightning's state and the loss of the best epoch."""
        return super().state_dict() | {"best_loss": self._best_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the score from the checkpoint of the best epoch in this run's folder."""
        best = Path(str(self.dirpath), f"{self.filename}{self.FILE_EXTENSION}")
        if not best.is_file():
            return
        states = torch.load(best, map_location="cpu", weights_only=True, mmap=True)["callbacks"]
        state = dict(states.get(self.state_key, state_dict))
        score, self._best_loss = state["best_model_score"], state.get("best_loss", math.inf)
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
    """Early stopping that counts an equal accuracy with a lower loss as better, and is remembered.

    Resumed after it, a run does not train one more epoch.
    """

    _loss = _best_loss = math.inf

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Stop before the first epoch if the checkpoint says that patience had ended."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """Return Lightning's state and the loss of the best epoch."""
        return super().state_dict() | {"best_loss": self._best_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them."""
        super().load_state_dict(state_dict)
        self._best_loss = state_dict.get("best_loss", math.inf)

    def _run_early_stopping_check(self, trainer: Trainer) -> None:
        self._loss = float(trainer.callback_metrics[LOSS])
        super()._run_early_stopping_check(trainer)

    def _evaluate_stopping_criteria(self, current: Tensor) -> tuple[bool, str | None]:
        before = self.best_score
        if bool(current == before.to(current.device)) and self._loss < self._best_loss:
            self.wait_count, self._best_loss = 0, self._loss
            return False, None
        result = super()._evaluate_stopping_criteria(current)
        if self.best_score is not before:
            self._best_loss = self._loss
        return result
