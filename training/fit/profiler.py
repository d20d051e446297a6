"""Profile: how fast a recipe loads and learns on this machine, which of the two limits it, where a step's time goes.

Each stage is measured by itself, on the recipe's own images: in every round the loading alone, the step alone (one
batch kept in memory) and both together, one after the other, so that a machine that slows down slows all three. Then
one pass with a stopwatch in the loop and one under PyTorch's profiler; the rates are not taken from these two.
"""

import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch.profiler import ProfilerActivity
from torch.utils.data import DataLoader

from training.data.cache import Cache
from training.data.datamodule import Batch, ImageDataModule
from training.data.manifest import Manifest
from training.fit.module import Classification
from training.fit.run import Run
from training.fit.steps import Again, endless, of_stage, take
from training.fit.stopwatch import Lap, Stopwatch
from training.fit.trainer import begin, precision
from training.recipe import Recipe
from visionserve.errors import BundleError

ROUNDS = 3
WARM = 3  # steps before the clock starts, besides those whose batches waited already
OPERATORS = 10  # rows of the table of operators
TRACED = 3  # steps under PyTorch's profiler, which slows them and keeps every event


@dataclass(frozen=True)
class Operator:
    """One of PyTorch's operators: its share (0-1) of a step's time without what it calls, and its calls per step."""

    name: str
    share: float
    calls: float


@dataclass(frozen=True)
class StageProfile:
    """One stage: images/s of every round, and the seconds of each step's parts."""

    size: int
    frozen: tuple[str, ...]
    cached: list[float]
    decoded: list[float]
    step: list[float]
    both: list[float]
    parts: list[dict[str, float]]
    operators: list[Operator]


@dataclass(frozen=True)
class Profile:
    """All stages; ``memory`` has the peaks of this process, of a worker and of the GPU, and the cache, in bytes."""

    precision: str
    steps: int
    stages: list[StageProfile]
    memory: dict[str, int]


def profile(recipe: Recipe, cache: Path, steps: int, rounds: int = ROUNDS) -> Profile:
    """Measure every stage of the recipe, ``steps`` warm steps of each kind per round, in one process on one device.

    The images' cache below ``cache`` is filled if it is not, and stays.
    """
    if steps < 1:
        raise BundleError(f"a profile needs at least one step, not {steps}")
    stages = [of_stage(recipe, stage) for stage in recipe.stages]
    with tempfile.TemporaryDirectory() as folder:
        module, images = begin(stages[0], Run(Path(folder)), cache)
    manifest = images.manifest
    measured = [_StageBenchmark(module, stage, manifest, cache, steps).measure(rounds) for stage in stages]
    pixels = _images(recipe, manifest, cache, cached=True).decoded()
    memory = _peaks() | {"cache": pixels.size if isinstance(pixels, Cache) else 0}
    return Profile(str(precision(recipe.precision)), steps, measured, memory)


class _StageBenchmark:
    """Measures one stage."""

    def __init__(self, module: Classification, recipe: Recipe, manifest: Manifest, cache: Path, steps: int) -> None:
        self._module, self._recipe, self._steps = module, recipe, steps
        self._cached = endless(_images(recipe, manifest, cache, cached=True))
        self._decoded = endless(_images(recipe, manifest, cache, cached=False))
        self._loader = self._cached if recipe.data.cache else self._decoded
        self._kept = Again(next(iter(self._loader)))
        self._warm = WARM + self._loader.num_workers * (self._loader.prefetch_factor or 0)

    def measure(self, rounds: int) -> StageProfile:
        rates: dict[str, list[float]] = {"cached": [], "decoded": [], "step": [], "both": []}
        for _ in range(rounds):
            rates["cached"].append(self._loading(self._cached))
            rates["decoded"].append(self._loading(self._decoded))
            rates["step"].append(self._learning(self._kept))
            rates["both"].append(self._learning(self._loader))
        stage = self._recipe.stages[0]
        return StageProfile(stage.size, stage.freeze, **rates, parts=self._parts(), operators=self._operators())

    def _loading(self, loader: DataLoader[Any]) -> float:
        batches = iter(loader)
        for _ in range(self._warm):
            next(batches)
        began = time.perf_counter()
        for _ in range(self._steps):
            next(batches)
        return self._rate(time.perf_counter() - began)

    def _learning(self, batches: Iterable[Batch]) -> float:
        lap = Lap(self._warm, self._steps)
        take(self._module, self._recipe, batches, self._warm + self._steps, lap)
        return self._rate(lap.seconds)

    def _parts(self) -> list[dict[str, float]]:
        stopwatch = Stopwatch(self._module.network)
        take(self._module, self._recipe, self._loader, self._warm + self._steps + 1, profiler=stopwatch)
        stopwatch.release()
        return stopwatch.steps[self._warm :]

    def _operators(self) -> list[Operator]:
        trace = _Trace(WARM)
        take(self._module, self._recipe, self._kept, WARM + TRACED, trace)
        return trace.operators()

    def _rate(self, seconds: float) -> float:
        return self._recipe.batch_size * self._steps / seconds


class _Trace(Callback):
    """PyTorch's profiler around the steps after ``warm`` ones."""

    def __init__(self, warm: int) -> None:
        self._warm = warm
        os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # it reports a missing GPU as an error
        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
        self._profile = torch.profiler.profile(activities=kinds)

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:  # noqa: ARG002
        if trainer.global_step == self._warm:
            self._profile.start()

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:  # noqa: ARG002
        self._profile.stop()

    def operators(self) -> list[Operator]:
        """Return the most expensive ones first."""
        clock = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        events = sorted(self._profile.key_averages(), key=lambda event: -getattr(event, clock))
        whole = sum(getattr(event, clock) for event in events)
        return [
            Operator(event.key, getattr(event, clock) / whole, event.count / TRACED) for event in events[:OPERATORS]
        ]


def _images(recipe: Recipe, manifest: Manifest, cache: Path, *, cached: bool) -> ImageDataModule:
    return ImageDataModule(replace(recipe, data=replace(recipe.data, cache=cached)), manifest, cache)


def _peaks() -> dict[str, int]:
    """Return the largest resident sizes so far, in bytes; of the workers, that of the largest."""
    unit = 1 if sys.platform == "darwin" else 1024
    peaks = {
        "process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "worker": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit,
    }
    if torch.cuda.is_available():
        peaks["gpu"] = torch.cuda.max_memory_allocated()
    return peaks
