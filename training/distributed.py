"""Several processes that train as one: which is rank zero, who launched them, and the settings of Lightning's Trainer.

    python -m training fit --machine.devices 2        Lightning starts the second itself, after `rank_zero_first`
    torchrun ... -m -- training fit, a PyTorchJob      all start at once; `rank_zero_first` makes the others wait

This is the only module that reads the launchers' environment variables.
"""

import itertools
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_only
from torch.distributed import PrefixStore  # type: ignore[attr-defined]  # documented, but not exported
from torch.distributed.rendezvous import rendezvous

from training.recipe import Recipe
from visionserve.errors import BundleError

T = TypeVar("T")
_stores: list[PrefixStore] = []  # kept: rank zero may be the one that serves it
_calls = itertools.count()  # the same in all processes
TIMEOUT = timedelta(days=1)  # for hashing the images of a large data set on a slow volume


def is_rank_zero() -> bool:
    """Whether this process is the one that writes files and logs."""
    return bool(rank_zero_only.rank == 0)  # type: ignore[attr-defined]  # Lightning sets it


def from_launcher(recipe: Recipe) -> Recipe:
    """Return the recipe with the processes that a launcher has started, if one has; its numbers win.

    Raises:
        BundleError: there are several machines, and no launcher has said which of them this is.
    """
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        devices = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        return replace(recipe, machine=replace(recipe.machine, devices=devices, nodes=_world() // devices))
    if recipe.machine.nodes > 1:
        raise BundleError(
            "several machines need a launcher that numbers them: on each, "
            f"`torchrun --nnodes {recipe.machine.nodes} --nproc-per-node {recipe.machine.devices} "
            "--rdzv-backend c10d --rdzv-endpoint HOST:PORT -m -- training fit ...`"
        )
    return recipe


def rank_zero_first(write: Callable[[], T], read: Callable[[], T]) -> T:
    """Return ``write()`` in the first process and, when that is done, ``read()`` in all others."""
    if is_rank_zero():
        result = write()
        _wait_for_rank_zero()
        return result
    _wait_for_rank_zero()
    return read()


def trainer_settings(recipe: Recipe) -> dict[str, Any]:
    """Return the settings of Lightning's Trainer that concern devices.

    Raises:
        BundleError: there are fewer GPUs than processes to use them.
    """
    machine = recipe.machine
    if torch.cuda.is_available() and machine.devices > torch.cuda.device_count():
        raise BundleError(
            f"machine.devices is {machine.devices}, but this machine has {torch.cuda.device_count()} GPUs"
        )
    single = {"devices": machine.devices, "num_nodes": machine.nodes, "use_distributed_sampler": False}
    if machine.processes == 1:
        return single
    freezes = recipe.optimizer.head_epochs > 0 or any(stage.freeze for stage in recipe.stages)
    # Frozen parts have no gradient to wait for. On GPUs batch norms are synchronised, so buffers are equal everywhere.
    # PyTorch has none for CPUs: there each process normalises by its share, and rank zero's statistics count.
    synchronised = torch.cuda.is_available()
    return single | {"strategy": DDPStrategy(find_unused_parameters=freezes, forward_sync_buffers=not synchronised)}


def _wait_for_rank_zero() -> None:
    """Return in rank zero at once and in the others once it has called this; without a launcher there is one process.

    Through the launcher's key-value store, under a prefix of our own. A process group for this would leave its
    addresses under the keys of Lightning's group: the others would then connect to sockets that are closed.
    """
    if "RANK" not in os.environ or _world() == 1:
        return
    if not _stores:
        store, _, _ = next(rendezvous("env://", timeout=TIMEOUT))
        _stores.append(PrefixStore("visionserve/rank-zero-first", store))
    key = f"call-{next(_calls)}"
    if is_rank_zero():
        _stores[0].set(key, "done")
    else:
        _stores[0].wait([key], TIMEOUT)


def _world() -> int:
    return int(os.environ["WORLD_SIZE"])
