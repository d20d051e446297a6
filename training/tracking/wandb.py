"""Weights & Biases: offline below <run>/wandb, to be sent with `wandb sync` later, or online as it goes."""

import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

# Read when it is imported; what the user has set stays.
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
os.environ.setdefault("WANDB_SILENT", "true")

import wandb
from lightning.pytorch.loggers import WandbLogger

from training.data.cache import Pixels
from training.recipe import Recipe
from training.tracking.tracker import Parameter, State, headline
from visionserve.model_card import ModelCard

_STEP = "trainer/global_step"  # Lightning's name of the axis


class WeightsAndBiases:
    """One run; each process that goes on with it offline leaves a folder of its own, with the same id."""

    def __init__(self, run: wandb.Run, rows: int, folder: Path) -> None:
        self._run, self._rows = run, rows
        self._logger = WandbLogger(experiment=run)
        self.id = str(run.id)
        self.location = str(folder)

    def parameters(self, values: Mapping[str, Parameter], text: str) -> None:  # noqa: ARG002  # the values say it all
        """Log the recipe as the run's configuration."""
        self._logger.log_hyperparams(dict(values))

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log points."""
        self._log(values, step)

    def image(self, name: str, pixels: Pixels, step: int) -> None:
        """Log an image beside those of earlier steps."""
        self._log({name: wandb.Image(pixels)}, step)

    def bundle(self, folder: Path, card: ModelCard, step: int) -> str:
        """Log the bundle as a model whose metadata is the card."""
        name = re.sub(r"[^\w.-]", "-", card.name)
        model = wandb.Artifact(name, "model", description=f"{card.name} {card.version}", metadata=asdict(card))
        model.add_dir(str(folder))
        self._run.log_artifact(model, aliases=[card.version])
        self._log(headline(card), step)
        return f"Weights & Biases has a copy of {folder}, as an artifact of the run: {self.location}"

    def close(self, status: str) -> None:
        """Write everything out and end the run."""
        self._run.finish(exit_code=0 if status == "success" else 1)

    def _log(self, values: Mapping[str, object], step: int) -> None:
        """Log a row.

        We number the rows: an offline run that goes on would count from 0 again, and what stands under a number
        that was used before is thrown away when the run is sent.
        """
        self._run.log({**values, _STEP: step}, step=self._rows)
        self._rows += 1


def open_tracker(recipe: Recipe, folder: Path, state: State) -> WeightsAndBiases:
    """Open the run of ``state``, or begin one named after the run's folder in the recipe's project."""
    settings, store = recipe.tracking, folder / "wandb"
    store.mkdir(parents=True, exist_ok=True)
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR"):  # copies of artifacts, which would go to the home folder
        os.environ.setdefault(name, str(store.resolve()))
    run = wandb.init(
        name=folder.name,
        project=settings.project,
        dir=folder,
        id=state.id or None,
        resume="allow",
        mode="offline" if settings.offline else "online",
        settings=wandb.Settings(console="off", disable_git=True, disable_code=True, silent=True, init_timeout=30),
    )
    run.define_metric(_STEP)
    run.define_metric("*", step_metric=_STEP, step_sync=True)
    return WeightsAndBiases(run, state.sent, store)
