"""Workers: which of them run, which have answered a prediction, and whether the service is ready.

Ready is first when every worker of every model has answered since the start. Later one answering worker per model is
enough: a worker that died is back in seconds, and the pod that still answers must not be taken out for it. A new
worker counts when it has answered itself. A new probe answered by every worker shows a drain that everything queued
before it has been answered: the queue is first in, first out, and a worker has one batch at a time.
"""

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from launcher.archive import Archive
from launcher.torchserve_api import ModelDescription, NoAnswer, ProbeAnswer

Status = Literal["ready", "loading", "draining", "failed"]
# Loading takes seconds; a cold disk and busy cores take many of them.
START_TIMEOUT_S = 240.0
# TorchServe restarts a worker after at most a few seconds, for five minutes; a model without any for this long is gone.
GONE_AFTER_S = 120.0
# Of each worker, before any has answered: what kills a worker three times while it loads kills it always.
_DEATHS_WHILE_LOADING = 3
_TICK_S = 0.5
# Between probes that a worker answered which had answered already.
_PAUSE_S = 0.1


class TorchServeApi(Protocol):
    """The part of TorchServe that the monitor needs."""

    def workers(self, expected: int, /) -> set[int]: ...  # noqa: D102
    def describe(self, model: str, /) -> ModelDescription | None: ...  # noqa: D102
    def predict(self, model: str, /) -> ProbeAnswer: ...  # noqa: D102


@dataclass
class Model:
    """A model's workers by process id, and when the probe was sent that each of them answered last."""

    archive: Archive
    total: int = 0
    workers: set[int] = field(default_factory=set)
    answered: dict[int, float] = field(default_factory=dict)
    complete: bool = False
    deaths: int = 0
    lost_at: float = 0.0
    failure: str = ""

    @property
    def ready(self) -> int:
        """How many workers have answered and run."""
        return len(self.workers & self.answered.keys())

    def all_answered(self, since: float) -> bool:
        """Whether every running worker has answered a probe sent after ``since``."""
        return bool(self.workers) and all(self.answered.get(pid, -math.inf) >= since for pid in self.workers)


class WorkerMonitor:
    """Monitors the models of a TorchServe from threads of its own, between `start` and `stop`."""

    def __init__(
        self, server: TorchServeApi, archives: Sequence[Archive], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.models = {archive.name: Model(archive) for archive in archives}
        self.first_answers: dict[str, dict[str, Any]] = {}
        self.start_s: float | None = None
        self.draining_since: float | None = None
        self._server = server
        self._clock = clock
        self._started = clock()
        self._probed_since = 0.0
        self._stopped = False
        self._changed = threading.Condition()

    def start(self) -> None:
        """Start the threads."""
        threading.Thread(target=self._tick_forever, daemon=True).start()
        for model in self.models.values():
            threading.Thread(target=self._probe_forever, args=(model,), daemon=True).start()

    def stop(self) -> None:
        """Stop probing; TorchServe is about to end."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def begin_drain(self) -> float:
        """Be not ready from now on, for good; requests are still answered. Return since when."""
        with self._changed:
            if self.draining_since is None:
                self.draining_since = self._clock()
            return self.draining_since

    def probe_all(self) -> float:
        """Send new probes until every worker has answered one; return the time from which answers count."""
        with self._changed:
            self._probed_since = self._clock()
            self._changed.notify_all()
            return self._probed_since

    def all_answered(self, since: float) -> bool:
        """Whether every worker of every model has answered a probe sent after ``since``."""
        with self._changed:
            return all(model.all_answered(since) for model in self.models.values())

    def complete(self) -> bool:
        """Whether every worker of every model has answered at least once."""
        with self._changed:
            return all(model.complete for model in self.models.values())

    def failure(self) -> str:
        """Return why the service cannot come back by itself; empty as long as it can."""
        with self._changed:
            return next((model.failure for model in self.models.values() if model.failure), "")

    def not_ready_reason(self) -> str:
        """Return why no request should be sent here; empty when it should."""
        with self._changed:
            if self.draining_since is not None:
                return "draining"
            return next((text for model in self.models.values() if (text := _not_ready_reason(model))), "")

    def status(self, model: Model) -> Status:
        """Return a model's state in one word."""
        if model.failure:
            return "failed"
        if self.draining_since is not None:
            return "draining"
        return "loading" if _not_ready_reason(model) else "ready"

    def tick(self) -> None:
        """Look at the processes once, and at the management API when there is one that is not registered yet."""
        alive = self._server.workers(sum(model.total for model in self.models.values()))
        with self._changed:
            for model in self.models.values():
                self.mark_dead(model, model.workers - alive)
            registered = set().union(*(model.workers for model in self.models.values()))
        if not alive <= registered or not all(model.total for model in self.models.values()):
            for model in self.models.values():
                self.register(model, self._server.describe(model.archive.name), alive)
        with self._changed:
            for model in self.models.values():
                model.failure = model.failure or self._failure_reason(model)

    def mark_dead(self, model: Model, dead: set[int]) -> None:
        """Forget workers that have ended."""
        if dead and not self._stopped:
            model.workers -= dead
            model.answered = {pid: when for pid, when in model.answered.items() if pid not in dead}
            model.deaths += len(dead)
            model.lost_at = self._clock()

    def register(self, model: Model, description: ModelDescription | None, alive: set[int]) -> None:
        """Take over what the management API reports of a model."""
        if description is not None:
            with self._changed:
                model.total = description.total
                model.workers |= description.pids & alive
                self._complete(model)
                self._changed.notify_all()

    def _failure_reason(self, model: Model) -> str:
        name, now = model.archive.name, self._clock()
        if not model.complete:
            if model.ready == 0 and model.deaths >= _DEATHS_WHILE_LOADING * max(model.total, 1):
                return f"The workers of {name} end while they load: see their log above."
            if now - self._started > START_TIMEOUT_S:
                return f"{name} has not answered with every worker within {START_TIMEOUT_S:.0f} s: see the log above."
        elif model.ready == 0 and now - model.lost_at > GONE_AFTER_S:
            return f"No worker of {name} has answered for {GONE_AFTER_S:.0f} s: see the log above."
        return ""

    def probe_once(self, model: Model) -> bool:
        """Send a model one probe; return whether the worker that answered still had to."""
        sent_at = self._clock()
        try:
            answer = self._server.predict(model.archive.name)
        except NoAnswer:
            return False
        with self._changed:
            if answer.pid is None:
                model.failure = (
                    f"{model.archive.name}.mar was made by an earlier version: rebuild it with `make archive`."
                )
                return False
            if self.start_s is None:
                self.start_s = self._clock() - self._started
            self.first_answers.setdefault(model.archive.name, answer.content)
            was_due = model.answered.get(answer.pid, -math.inf) < self._probed_since
            model.answered[answer.pid] = sent_at
            self._complete(model)
            self._changed.notify_all()
            return was_due

    def _complete(self, model: Model) -> None:
        model.complete = model.complete or 0 < model.total <= model.ready

    def _needs_probe(self, model: Model) -> bool:
        return not model.failure and not model.all_answered(self._probed_since)

    def _tick_forever(self) -> None:
        while not self._stopped:
            self.tick()
            time.sleep(_TICK_S)

    def _probe_forever(self, model: Model) -> None:
        while not self._stopped:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._needs_probe(model))
            if not self._stopped and not self.probe_once(model):
                time.sleep(_PAUSE_S)


def _not_ready_reason(model: Model) -> str:
    name, ready = model.archive.name, model.ready
    if model.failure:
        return model.failure
    if not model.complete:
        return f"{ready} of {model.total or 'its'} workers of {name} have answered so far"
    return "" if ready else f"{name} has no worker left; TorchServe restarts them"
