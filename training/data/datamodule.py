"""The images of a run as batches: varied ones from the cache to learn from, served ones to measure on.

manifest -> cache -> Augmentation        -> train: uint8 (B, S, S, 3), S as the stage says
         `-> files -> transforms.load    -> val:   uint8 (B, size, size, 3), exactly as served
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from training.data import shared_memory
from training.data.augment import Augmentation
from training.data.cache import Cache, Files, Pixels, open_cache, read
from training.data.datasets import Split
from training.data.manifest import Manifest, joined
from training.recipe import Recipe
from visionserve.errors import BundleError, ServiceError
from visionserve.transforms import Preprocessing, load

Batch = tuple[Tensor, Tensor]
VAL_BATCH = 64
# Workers begin in milliseconds. Python's own default is another one from 3.14 on, in which each imports torch first.
START_METHOD = "fork"


def loading_processes(recipe: Recipe) -> int:
    """Return how many processes augment for each one that trains on this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return recipe.data.loading_processes(recipe.machine.devices, cuda=torch.cuda.is_available(), cores=cores)


class SampleSpec(NamedTuple):
    """What a sampler requests: a row of the manifest, a size in pixels and the seed of the variation."""

    row: int
    size: int
    seed: int


class AugmentedDataset(Dataset[tuple[Tensor, int]]):
    """Training images, varied at random."""

    def __init__(self, cache: Cache | Files, targets: list[int], augmentation: Augmentation) -> None:
        self._cache, self._targets, self._augmentation = cache, targets, augmentation

    def __getitem__(self, sample: SampleSpec) -> tuple[Tensor, int]:
        """Return (S, S, 3) uint8 and the label's index."""
        return self._augmentation(self._cache[sample.row], sample.size, sample.seed), self._targets[sample.row]


@dataclass(frozen=True)
class Portion:
    """The training images of a source, as indices, and how often an epoch shows each."""

    indices: list[int]
    weight: float = 1.0

    def of_epoch(self, seed: int, epoch: int) -> list[int]:
        """Return the indices of an epoch: all as often as the weight has ones, and a random part of them for the rest.

        The part is another in each epoch, and follows from ``seed`` and ``epoch`` alone.
        """
        whole = int(self.weight)
        part = len(self) - whole * len(self.indices)
        if not part:
            return self.indices * whole
        chosen = np.random.default_rng([seed, epoch, len(self.indices)]).permutation(self.indices)[:part]
        return self.indices * whole + sorted(chosen.tolist())

    def __len__(self) -> int:
        return round(self.weight * len(self.indices))


class EpochSampler(Sampler[SampleSpec]):
    """Every image, as often as its source's weight says, in an order and in variations of one's own for each epoch.

    They follow from the recipe's seed and the epoch alone.

    Of several processes, number ``rank`` gets its share of each batch: together they learn from the same images at
    every step as one process would.
    """

    def __init__(self, portions: Sequence[Portion], recipe: Recipe, rank: int = 0) -> None:
        self._portions, self._recipe, self._rank, self._epoch = portions, recipe, rank, 0
        self._count = sum(len(portion) for portion in portions)
        self.share = recipe.batch_size // recipe.machine.processes

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        if self._recipe.machine.processes == 1:
            return self._count
        return self._count // self._recipe.batch_size * self.share

    def __iter__(self) -> Iterator[SampleSpec]:
        generator = np.random.default_rng([self._recipe.seed, self._epoch])
        size = self._recipe.stage(self._epoch).size
        seeds = generator.integers(2**62, size=self._count).tolist()
        indices = [index for portion in self._portions for index in portion.of_epoch(self._recipe.seed, self._epoch)]
        order = generator.permutation(indices).tolist()
        samples = (SampleSpec(index, size, seed) for index, seed in zip(order, seeds, strict=True))
        first = self._rank * self.share
        mine = (
            sample for at, sample in enumerate(samples) if first <= at % self._recipe.batch_size < first + self.share
        )
        return islice(mine, len(self))


class ImageDataModule(LightningDataModule):
    """The batches of one recipe and its manifests; decoded images are cached below ``cache``.

    ``manifests`` are those of the first source and of ``data.more``, in that order; ``manifest`` has all of them.
    """

    def __init__(self, recipe: Recipe, manifests: Manifest | Sequence[Manifest], cache: Path) -> None:
        super().__init__()
        parts = [manifests] if isinstance(manifests, Manifest) else list(manifests)
        self._recipe, self._folder, self.manifest = recipe, cache, joined(parts)
        self._portions, self._parts = _portions(recipe, parts), parts
        self._targets = self.manifest.targets()
        self._cache: Cache | Files | None = None
        self._val: list[tuple[Tensor, int]] = []

    def prepare_data(self) -> None:
        """Fill the cache, once per machine."""
        self.decoded()

    def decoded(self) -> Cache | Files:
        """Return the manifest's images as arrays, from the cache or, if the recipe wants none, from the files."""
        settings = self._recipe.data
        if settings.cache:
            return open_cache(self.manifest, self._folder, settings.cache_side)
        return Files(self.manifest, settings.cache_side)

    def setup(self, stage: str) -> None:  # noqa: ARG002  # Lightning's signature
        """Open the cache, once per process."""
        self._cache = self.decoded()

    def train_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """Return shuffled, varied batches; the last, incomplete one is dropped unless it is the only one."""
        if self._cache is None:
            raise RuntimeError("setup() comes first")
        workers = loading_processes(self._recipe)
        sampler = EpochSampler(
            self._portions, self._recipe, self.trainer.global_rank if self.trainer is not None else 0
        )
        if not len(sampler):
            raise BundleError(
                f"{sum(map(len, self._portions))} images to learn from are less than one batch of "
                f"{self._recipe.batch_size}, which several processes would share: take a smaller batch_size or one "
                "process"
            )
        largest = max(stage.size for stage in self._recipe.stages)
        shared_memory.require(
            workers * self._recipe.machine.devices, sampler.share * 3 * largest**2, len(sampler) // sampler.share
        )
        return DataLoader(
            AugmentedDataset(self._cache, self._targets, Augmentation(self._recipe.augment)),
            batch_size=sampler.share,
            sampler=sampler,
            generator=torch.Generator(),  # a loader samples a number, in a resumed epoch earlier: not from dropout's
            num_workers=workers,
            multiprocessing_context=START_METHOD if workers else None,
            persistent_workers=False,
            prefetch_factor=shared_memory.PREFETCHED if workers else None,
            drop_last=len(sampler) >= sampler.share,
            pin_memory=torch.cuda.is_available(),
        )

    def val_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """Return the validation images as the service would see them."""
        if not self._val:
            preprocessing = Preprocessing(self._recipe.input.size, self._recipe.input.crop)
            images, targets = served(self.manifest, "val", preprocessing)
            self._val = list(zip(torch.from_numpy(images), targets.tolist(), strict=True))
        return DataLoader(self._val, batch_size=VAL_BATCH)  # type: ignore[arg-type]  # a list serves as a data set

    def validated(self) -> list[int]:
        """Return the number of validation images of each source, in the order in which they are validated."""
        return [len(part.part("val")) for part in self._parts]


def _portions(recipe: Recipe, parts: Sequence[Manifest]) -> list[Portion]:
    """Return the training images of each source, as indices of the joined manifest."""
    weights = [recipe.data.weight, *(source.weight for source in recipe.data.more)]
    starts = accumulate((len(part.rows) for part in parts), initial=0)
    return [
        Portion([start + index for index in part.part("train")], weight)
        for part, weight, start in zip(parts, weights, starts, strict=False)
    ]


def served(manifest: Manifest, split: Split, preprocessing: Preprocessing) -> tuple[Pixels, np.ndarray]:
    """Return a split as serving prepares it: (N, S, S, 3) uint8, and the label indices (N,)."""
    indices, targets = manifest.part(split), manifest.targets()
    images = load_served([manifest.root / manifest.rows[index].path for index in indices], preprocessing)
    return images, np.array([targets[index] for index in indices])


def load_served(files: Sequence[Path], preprocessing: Preprocessing) -> Pixels:
    """Return image files as serving prepares them, (N, S, S, 3) uint8; a BundleError names one that does not decode."""

    def one(file: Path) -> Pixels:
        try:
            return load(read(file), preprocessing)
        except ServiceError as error:
            raise BundleError(f"{file} cannot be used: {error.message}") from error

    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(one, files)))
