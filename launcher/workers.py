"""Watch: which workers run, which of them have answered a real photograph, and what that means for the service.

Ready is first when every worker of every model has answered since the start. Later one answering worker per model is
enough: a worker that died is back in seconds, and the pod that still answers must not be taken out for it. A new
worker counts when it has answered itself. The same question, asked anew of every worker, tells a drain that all that
was queued before has been answered: the queue is first in, first out, and a worker has one batch at a time.
"""

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from launcher.archive import Archive
from launcher.torchserve_api import Answered, Described, NoAnswer

Status = Literal["ready", "loading", "draining", "failed"]
# Loading takes seconds; a cold disk and busy cores take many of them.
START_TIMEOUT_S = 240.0
# TorchServe restarts a worker after at most a few seconds, for five minutes; a model without any for this long is gone.
GONE_AFTER_S = 120.0
# Of each worker, before any has answered: what kills a worker three times while it loads kills it always.
_DEATHS_WHILE_LOADING = 3
_TICK_S = 0.5
# Between questions that another worker than the wanted one answered.
_PAUSE_S = 0.1


class Server(Protocol):
    """What the watch asks of TorchServe."""

    def workers(self, expected: int, /) -> set[int]: ...  # noqa: D102
    def describe(self, model: str, /) -> Described | None: ...  # noqa: D102
    def ask(self, model: str, /) -> Answered: ...  # noqa: D102


@dataclass
class Model:
    """A model's workers by process id, and when the question was asked that each of them answered last."""

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
        """Whether every running worker has answered a question asked after ``since``."""
        return bool(self.workers) and all(self.answered.get(pid, -math.inf) >= since for pid in self.workers)


class Watch:
    """Watches the models of a TorchServe from threads of its own, between `start` and `stop`."""

    def __init__(
        self, server: Server, archives: Sequence[Archive], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.models = {archive.name: Model(archive) for archive in archives}
        self.first_answers: dict[str, dict[str, Any]] = {}
        self.start_s: float | None = None
        self.drained_at: float | None = None
        self._server = server
        self._clock = clock
        self._started = clock()
        self._asked_since = 0.0
        self._stopped = False
        self._changed = threading.Condition()

    def start(self) -> None:
        """Start watching and asking."""
        threading.Thread(target=self._tick_forever, daemon=True).start()
        for model in self.models.values():
            threading.Thread(target=self._ask_forever, args=(model,), daemon=True).start()

    def stop(self) -> None:
        """Stop asking; TorchServe is about to end."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def drain(self) -> float:
        """Be not ready from now on, for good; what comes is still answered. Return since when."""
        with self._changed:
            if self.drained_at is None:
                self.drained_at = self._clock()
            return self.drained_at

    def challenge(self) -> float:
        """Ask every worker anew; return the time from which their answers count."""
        with self._changed:
            self._asked_since = self._clock()
            self._changed.notify_all()
            return self._asked_since

    def all_answered(self, since: float) -> bool:
        """Whether every worker of every model has answered a question asked after ``since``."""
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

    def why_not_ready(self) -> str:
        """Return why no request should be sent here; empty when it should."""
        with self._changed:
            if self.drained_at is not None:
                return "draining"
            return next((text for model in self.models.values() if (text := _why_not(model))), "")

    def status(self, model: Model) -> Status:
        """Return a model's state in one word."""
        if model.failure:
            return "failed"
        if self.drained_at is not None:
            return "draining"
        return "loading" if _why_not(model) else "ready"

    def tick(self) -> None:
        """Look at the processes once, and at the management API when there is one that is not known yet."""
        alive = self._server.workers(sum(model.total for model in self.models.values()))
        with self._changed:
            for model in self.models.values():
                self._bury(model, model.workers - alive)
            known = set().union(*(model.workers for model in self.models.values()))
        if not alive <= known or not all(model.total for model in self.models.values()):
            for model in self.models.values():
                self._meet(model, self._server.describe(model.archive.name), alive)
        with self._changed:
            for model in self.models.values():
                model.failure = model.failure or self._given_up(model)

    def _bury(self, model: Model, dead: set[int]) -> None:
        if dead and not self._stopped:
            model.workers -= dead
            model.answered = {pid: when for pid, when in model.answered.items() if pid not in dead}
            model.deaths += len(dead)
            model.lost_at = self._clock()

    def _meet(self, model: Model, described: Described | None, alive: set[int]) -> None:
        if described is not None:
            with self._changed:
                model.total = described.total
                model.workers |= described.pids & alive
                self._complete(model)
                self._changed.notify_all()

    def _given_up(self, model: Model) -> str:
        name, now = model.archive.name, self._clock()
        if not model.complete:
            if model.ready == 0 and model.deaths >= _DEATHS_WHILE_LOADING * max(model.total, 1):
                return f"The workers of {name} end while they load: the log above says why."
            if now - self._started > START_TIMEOUT_S:
                return f"{name} has not answered with every worker within {START_TIMEOUT_S:.0f} s: the log says why."
        elif model.ready == 0 and now - model.lost_at > GONE_AFTER_S:
            return f"No worker of {name} has answered for {GONE_AFTER_S:.0f} s: the log above says why."
        return ""

    def ask_once(self, model: Model) -> bool:
        """Ask a model one question; return whether the answer came from a worker that was wanted."""
        asked = self._clock()
        try:
            answer = self._server.ask(model.archive.name)
        except NoAnswer:
            return False
        with self._changed:
            if answer.pid is None:
                model.failure = (
                    f"{model.archive.name}.mar was made by an earlier version: `make archive` makes it anew."
                )
                return False
            if self.start_s is None:
                self.start_s = self._clock() - self._started
            self.first_answers.setdefault(model.archive.name, answer.content)
            wanted = model.answered.get(answer.pid, -math.inf) < self._asked_since
            model.answered[answer.pid] = asked
            self._complete(model)
            self._changed.notify_all()
            return wanted

    def _complete(self, model: Model) -> None:
        model.complete = model.complete or 0 < model.total <= model.ready

    def _wanted(self, model: Model) -> bool:
        return not model.failure and not model.all_answered(self._asked_since)

    def _tick_forever(self) -> None:
        while not self._stopped:
            self.tick()
            time.sleep(_TICK_S)

    def _ask_forever(self, model: Model) -> None:
        while not self._stopped:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._wanted(model))
            if not self._stopped and not self.ask_once(model):
                time.sleep(_PAUSE_S)


def _why_not(model: Model) -> str:
    name, ready = model.archive.name, model.ready
    if model.failure:
        return model.failure
    if not model.complete:
        return f"{ready} of {model.total or 'its'} workers of {name} have answered so far"
    return "" if ready else f"no worker of {name} is left; TorchServe restarts them"
