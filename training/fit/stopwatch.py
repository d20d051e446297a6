"""Where the time of a training step goes: the loop itself is timed, by Lightning's profiler and hooks of the network.

batch asked for -> here -> on the device | normalised, blended | network | loss | backward | optimizer | average
`---- waiting for data ----------------'                                                   the rest: the loop
"""

import time
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.profilers import Profiler
from torch import nn

WAIT, PREPARE, FORWARD, LOSS = "waiting for data", "normalise and blend", "forward", "loss and metrics"
BACKWARD, OPTIMIZER, AVERAGE, LOOP = "backward", "optimizer", "weight average", "logging and the loop"
PARTS = (WAIT, PREPARE, FORWARD, LOSS, BACKWARD, OPTIMIZER, AVERAGE, LOOP)

_NEXT, _DEVICE, _STEP, _BACK = ".train_dataloader_next", ".batch_to_device", ".training_step", ".backward"
_OPTIMISE, _END, _NETWORK = ".optimizer_step", "Classification.on_train_batch_end", "network"
_ACTIONS = (_NEXT, _DEVICE, _STEP, _BACK, _OPTIMISE, _END, _NETWORK)


class Stopwatch(Profiler):
    """Times the actions that Lightning announces; ``steps`` holds, per step, the seconds of every part.

    The parts of a step add up to its time, from one request for a batch to the next.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.steps: list[dict[str, float]] = []
        self._began: dict[str, float] = {}
        self._taken: dict[str, float] = {}
        self._cuda = torch.cuda.is_available()
        self._hooks = [
            network.register_forward_pre_hook(lambda *_: self.start(_NETWORK)),
            network.register_forward_hook(lambda *_: self.stop(_NETWORK)),
        ]

    def start(self, action_name: str) -> None:
        """Note when an action begins; a request for a batch ends the step before."""
        action = _action(action_name)
        if action is None:
            return
        now = self._now()
        if action == _NEXT:
            if _OPTIMISE in self._taken:
                self.steps.append(_parts(self._taken, now - self._began[_NEXT]))
            self._taken = {}
        if action == _NETWORK:
            self._taken[PREPARE] = now - self._began[_STEP]
        self._began[action] = now

    def stop(self, action_name: str) -> None:
        """Note how long an action took."""
        action = _action(action_name)
        if action is not None:
            self._taken[action] = self._now() - self._began[action]

    def release(self) -> None:
        """Take the hooks off the network."""
        for hook in self._hooks:
            hook.remove()

    def _now(self) -> float:
        if self._cuda:
            torch.cuda.synchronize()  # what was asked of the GPU belongs to the part that asked for it
        return time.perf_counter()


class Lap(Callback):
    """Times ``steps`` whole steps after ``warm`` ones; ``seconds`` is their sum."""

    def __init__(self, warm: int, steps: int) -> None:
        self._warm, self._steps = warm, steps
        self._began = 0.0
        self.seconds = 0.0

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:  # noqa: ARG002
        """Look at the clock at the first and the last of the steps."""
        if trainer.global_step not in (self._warm, self._warm + self._steps):
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if trainer.global_step == self._warm:
            self._began = time.perf_counter()
        else:
            self.seconds = time.perf_counter() - self._began


def _action(action: str) -> str | None:
    return next((name for name in _ACTIONS if action.endswith(name)), None)


def _parts(seconds: dict[str, float], whole: float) -> dict[str, float]:
    """Return the seconds of every part of a step; Lightning's optimizer step encloses forward and backward."""
    before = seconds.get(PREPARE, 0.0)
    network = seconds.get(_NETWORK, seconds[_STEP])  # a compiled network passes hooks by: all is forward then
    parts = {
        WAIT: seconds[_NEXT] + seconds.get(_DEVICE, 0.0),
        PREPARE: before,
        FORWARD: network,
        LOSS: seconds[_STEP] - before - network,
        BACKWARD: seconds[_BACK],
        OPTIMIZER: seconds[_OPTIMISE] - seconds[_STEP] - seconds[_BACK],
        AVERAGE: seconds[_END],
    }
    return parts | {LOOP: whole - sum(parts.values())}
