"""Steps of a recipe without a run: no validation, no log, no checkpoint. What profiles and range tests are made of."""

import logging
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import count, repeat
from typing import Any

from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader, IterableDataset, Sampler

from training.data import shared_memory
from training.data.datamodule import Batch, EpochSampler, ImageDataModule, SampleSpec
from training.fit.module import Classification
from training.fit.trainer import make_trainer
from training.recipe import Recipe, Stage


def of_stage(recipe: Recipe, stage: Stage) -> Recipe:
    """Return the recipe as if it had this stage only, the whole network trained from the start, in one process."""
    return replace(
        recipe,
        probe=False,
        least_steps=0,
        stages=(replace(stage, until=1.0),),
        optimizer=replace(recipe.optimizer, head_epochs=0, full_rate_images=0),
        machine=replace(recipe.machine, devices=1, nodes=1),
    )


@shared_memory.explained()
def take(
    module: Classification, recipe: Recipe, batches: Iterable[Batch], steps: int, *callbacks: Callback, **settings: Any
) -> None:
    """Train ``module`` as the recipe says, for so many steps; ``settings`` are those of Lightning's Trainer."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # it logs a greeting for every Trainer
    module.recipe = recipe
    trainer = make_trainer(
        recipe,
        max_steps=steps,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=list(callbacks),
        **settings,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*have no `val_dataloader`.*")  # that is meant
        warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")  # Lightning's own
        warnings.filterwarnings("ignore", message=".*in eval mode at the start.*")  # parts frozen the time before
        trainer.fit(module, train_dataloaders=batches)


def endless(images: ImageDataModule) -> DataLoader[Any]:
    """Return the training batches, the epochs strung together."""
    images.prepare_data()
    images.setup("fit")
    like = images.train_dataloader()
    return DataLoader(
        like.dataset,
        like.batch_size,
        sampler=_Epochs(like.sampler),  # type: ignore[arg-type]  # it is the one that ImageDataModule gave it
        num_workers=like.num_workers,
        multiprocessing_context=like.multiprocessing_context,
        prefetch_factor=like.prefetch_factor,
        pin_memory=like.pin_memory,
    )


class Again(IterableDataset[Batch]):
    """The same batch without end."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def __iter__(self) -> Iterator[Batch]:
        return repeat(self._batch)


class _Epochs(Sampler[SampleSpec]):
    """Epoch after epoch, without end."""

    def __init__(self, sampler: EpochSampler) -> None:
        self._sampler = sampler

    def __iter__(self) -> Iterator[SampleSpec]:
        for epoch in count():
            self._sampler.set_epoch(epoch)
            yield from self._sampler
