"""Workers: which of them run, which have answered a prediction, and whether the service is ready and live.

A model here is one version of a model. Of each name one version is the default, which answers requests that name none;
another version that cannot be served is left out, and the service goes on without it.

Ready is first when every worker of every model has answered since the start. Later one answering worker per model is
enough: a worker that died is back in seconds, and the pod that still answers must not be taken out for it. A new
worker counts when it has answered itself, and none counts that has been silent for `SILENT_S`: a worker that has
nothing else to answer gets a probe every `PROBE_S`. How many there should be follows TorchServe's management API.

A new probe answered by every worker shows a drain that everything queued before it has been answered: the queue is
first in, first out, and a worker has one batch at a time.
"""

import math
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from launcher.archive import Archive
from launcher.torchserve_api import ModelDescription, NoAnswer, ProbeAnswer, Refused

Status = Literal["ready", "loading", "draining", "failed"]
# Loading takes seconds; a cold disk and busy cores take many of them.
START_TIMEOUT_S = 240.0
# A worker that has answered nothing for so long gets a probe; after the second time it counts as hung.
PROBE_S, SILENT_S = 3.0, 12.0
# Nobody has answered for so long: not live any more; and the process ends, where no platform looks at liveness.
NOT_LIVE_AFTER_S, GONE_AFTER_S = 60.0, 120.0
# TorchServe restarts a worker after at most a few seconds, and gives up after five minutes without a success.
INCOMPLETE_AFTER_S = 360.0
# Of each worker, before any has answered: what kills a worker three times while it loads kills it always.
_DEATHS_WHILE_LOADING = 3
_TICK_S, _DESCRIBE_S = 0.5, 2.0
# Between probes that a worker answered which had answered already.
_PAUSE_S = 0.1
# A probe waits for a worker to load, and later for the batches before it.
_LOADING_TIMEOUT_S, _PROBE_TIMEOUT_S = 120.0, 5.0


class TorchServeApi(Protocol):
    """The part of TorchServe that the monitor needs."""

    def alive(self, pids: Collection[int], /) -> set[int]: ...  # noqa: D102
    def describe(self, model: str, /) -> ModelDescription | None: ...  # noqa: D102
    def predict(self, model: str, timeout_s: float, /) -> ProbeAnswer: ...  # noqa: D102
    def idle_s(self, pids: Collection[int], /) -> Mapping[int, float]: ...  # noqa: D102
    def refusal(self, name: str, version: str, /) -> str: ...  # noqa: D102


@dataclass
class Model:
    """A version of a model, and its workers by process id.

    ``required`` is the default version of its name. ``answered`` is when the probe was sent that a worker answered
    last, ``active`` when it answered anything; ``answered_at`` when any of them did last; ``incomplete_since`` is 0
    while all do. ``uncounted`` workers have ended, and it is not known yet whether on request.
    ``refusal`` is the error that the last probe got; empty since one got a prediction.
    """

    archive: Archive
    required: bool = True
    total: int = 0
    workers: set[int] = field(default_factory=set)
    answered: dict[int, float] = field(default_factory=dict)
    active: dict[int, float] = field(default_factory=dict)
    complete: bool = False
    deaths: int = 0
    uncounted: int = 0
    refused: bool = False
    answered_at: float = 0.0
    incomplete_since: float = 0.0
    ready: int = 0
    failure: str = ""
    refusal: str = ""

    @property
    def left_out(self) -> bool:
        """Whether the service goes on without it."""
        return bool(self.failure) and not self.required

    def all_answered(self, since: float) -> bool:
        """Whether every running worker has answered a probe sent after ``since``."""
        return bool(self.workers) and all(self.answered.get(pid, -math.inf) >= since for pid in self.workers)


class WorkerMonitor:
    """Monitors the models of a TorchServe from threads of its own, between `start` and `stop`.

    Of each name the first archive is the default version.
    """

    def __init__(
        self, server: TorchServeApi, archives: Sequence[Archive], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.models = {archive.key: Model(archive) for archive in archives}
        # By name.
        self.defaults: dict[str, Model] = {}
        for model in self.models.values():
            model.required = self.defaults.setdefault(model.archive.name, model) is model
        self.first_answers: dict[str, dict[str, Any]] = {}
        self.start_s: float | None = None
        self.draining_since: float | None = None
        self._server = server
        self._clock = clock
        self._started = clock()
        self._described_at = -math.inf
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

    def find(self, name: str, version: str | None = None) -> Model | None:
        """Return a version of a model, by default the one that answers requests that name none."""
        return self.defaults.get(name) if version is None else self.models.get(f"{name}/{version}")

    def versions(self, name: str) -> list[Model]:
        """Return a model's versions, the default first."""
        versions = [model for model in self.models.values() if model.archive.name == name]
        return sorted(versions, key=lambda model: not model.required)

    def set_default(self, model: Model) -> None:
        """Take over that this version answers from now on."""
        with self._changed:
            self.defaults[model.archive.name].required = False
            self.defaults[model.archive.name] = model
            model.required = True

    def left_out(self) -> list[Model]:
        """Return the versions that cannot be served and that the service goes on without."""
        with self._changed:
            return [model for model in self.models.values() if model.left_out]

    def probe_all(self) -> float:
        """Send new probes until every worker has answered one; return the time from which answers count."""
        with self._changed:
            self._probed_since = self._clock()
            self._changed.notify_all()
            return self._probed_since

    def all_answered(self, since: float) -> bool:
        """Whether every worker of every model has answered a probe sent after ``since``."""
        with self._changed:
            return all(model.all_answered(since) for model in self._served())

    def complete(self) -> bool:
        """Whether every worker of every model has answered at least once."""
        with self._changed:
            return all(model.complete for model in self._served())

    def failure(self) -> str:
        """Return why the service cannot come back by itself; empty as long as it can."""
        with self._changed:
            return next((model.failure for model in self._served() if model.failure), "")

    def refused(self) -> bool:
        """Whether a worker found that a model that has to answer can never be served here."""
        with self._changed:
            return any(model.refused and model.required for model in self.models.values())

    def answers(self) -> bool:
        """Whether any worker answers."""
        with self._changed:
            return any(model.ready for model in self.models.values())

    def not_live_reason(self) -> str:
        """Return why the platform should restart this; empty as long as it should not."""
        with self._changed:
            return self.failure() or next((text for m in self._served() if (text := self._not_live(m))), "")

    def not_ready_reason(self) -> str:
        """Return why no request should be sent here; empty when it should."""
        with self._changed:
            if self.draining_since is not None:
                return "draining"
            return next((text for model in self._served() if (text := _not_ready_reason(model))), "")

    def status(self, model: Model) -> Status:
        """Return a model's state in one word."""
        if model.failure:
            return "failed"
        if self.draining_since is not None:
            return "draining"
        return "loading" if _not_ready_reason(model) else "ready"

    def _served(self) -> list[Model]:
        return [model for model in self.models.values() if not model.left_out]

    def tick(self) -> None:
        """Look at the processes once, and at the management API when it is due or something has changed."""
        registered: set[int] = set().union(*(model.workers for model in self.models.values()))
        alive = self._server.alive(registered)
        unsettled = any(not model.complete or model.ready < model.total for model in self._served())
        descriptions: dict[str, ModelDescription | None] = {}
        if unsettled or alive != registered or self._clock() - self._described_at >= _DESCRIBE_S:
            descriptions = {key: self._server.describe(key) for key in self.models}
            self._described_at = self._clock()
            alive = self._server.alive(registered.union(*(d.pids for d in descriptions.values() if d)))
        idle_s = self._server.idle_s(alive)
        with self._changed:
            for key, model in self.models.items():
                self.register(model, descriptions.get(key), alive)
                self._note_activity(model, idle_s)
                model.failure = model.failure or self._failure_reason(model)
            self._changed.notify_all()

    def register(self, model: Model, description: ModelDescription | None, alive: set[int]) -> None:
        """Take over what the management API reports of a model, and forget workers that have ended.

        Those over the number that there should be were ended by TorchServe on request, one by one: no restarts. What
        ended while the management API gave no answer is counted when it does.
        """
        dead = model.workers - alive
        ended = model.uncounted + len(dead)
        if description is not None:
            surplus = max(0, len(model.workers) + model.uncounted - description.total)
            model.total = description.total
            model.workers |= description.pids & alive
            model.deaths += 0 if self._stopped else max(0, ended - surplus)
            ended = 0
        model.uncounted = ended
        if dead:
            model.workers -= dead
            model.answered = {pid: when for pid, when in model.answered.items() if pid not in dead}
            model.active = {pid: when for pid, when in model.active.items() if pid not in dead}

    def _note_activity(self, model: Model, idle_s: Mapping[int, float]) -> None:
        """Bring up to date who has answered lately; what a worker answered to others counts too."""
        now = self._clock()
        for pid in model.workers & model.answered.keys():
            model.active[pid] = max(model.active.get(pid, -math.inf), now - idle_s.get(pid, math.inf))
        if model.active:
            model.answered_at = max(model.answered_at, *model.active.values())
        model.ready = sum(now - model.active.get(pid, -math.inf) < SILENT_S for pid in model.workers)
        model.complete = model.complete or 0 < model.total <= model.ready
        if model.ready >= model.total:
            model.incomplete_since = 0.0
        elif not model.incomplete_since:
            model.incomplete_since = now

    def _failure_reason(self, model: Model) -> str:
        name, now = model.archive.title, self._clock()
        if not model.complete:
            if reason := self._server.refusal(model.archive.name, model.archive.version):
                model.refused = True
                return f"{name} cannot be served here: {reason.rstrip('.')}."
            if model.ready == 0 and model.deaths >= _DEATHS_WHILE_LOADING * max(model.total, 1):
                return f"The workers of {name} end while they load: see their log above."
            if now - self._started > START_TIMEOUT_S:
                waited = f"within {START_TIMEOUT_S:.0f} s{model.refusal}"
                return f"{name} has not answered with every worker {waited}: see the log above."
        elif model.ready == 0 and now - model.answered_at > GONE_AFTER_S:
            return f"No worker of {name} has answered for {GONE_AFTER_S:.0f} s{model.refusal}: see the log above."
        elif model.incomplete_since and now - model.incomplete_since > INCOMPLETE_AFTER_S:
            return (
                f"For {INCOMPLETE_AFTER_S:.0f} s only {model.ready} of {model.total} workers of {name} have answered, "
                "and TorchServe has given up on the others: see the log above."
            )
        return ""

    def _not_live(self, model: Model) -> str:
        if model.complete and model.ready == 0 and self._clock() - model.answered_at > NOT_LIVE_AFTER_S:
            return f"no worker of {model.archive.title} has answered for {NOT_LIVE_AFTER_S:.0f} s{model.refusal}"
        return ""

    def probe_once(self, model: Model) -> bool:
        """Send a model one probe; return whether the worker that answered still had to."""
        sent_at = self._clock()
        try:
            answer = self._server.predict(model.archive.key, _PROBE_TIMEOUT_S if model.complete else _LOADING_TIMEOUT_S)
        except NoAnswer as error:
            with self._changed:
                model.refusal = f" (a test request got {error})" if isinstance(error, Refused) else model.refusal
            return False
        with self._changed:
            model.refusal = ""
            if answer.pid is None:
                model.failure = f"{model.archive.path} was made by an earlier version: rebuild it with `make archive`."
                return False
            if self.start_s is None:
                self.start_s = self._clock() - self._started
            self.first_answers.setdefault(model.archive.key, answer.content)
            was_due = self._is_due(model, answer.pid)
            model.answered[answer.pid] = sent_at
            model.active[answer.pid] = self._clock()
            self._note_activity(model, {})
            self._changed.notify_all()
            return was_due

    def _is_due(self, model: Model, pid: int) -> bool:
        if model.answered.get(pid, -math.inf) < self._probed_since:
            return True
        return self._clock() - model.active.get(pid, -math.inf) > PROBE_S

    def _needs_probe(self, model: Model) -> bool:
        return not model.failure and (not model.workers or any(self._is_due(model, pid) for pid in model.workers))

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
    name, ready = model.archive.title, model.ready
    if model.failure:
        return model.failure
    if not model.complete:
        return f"{ready} of {model.total or 'its'} workers of {name} have answered so far{model.refusal}"
    if not model.workers:
        return f"{name} has no worker left; TorchServe restarts them"
    return "" if ready else f"no worker of {name} has answered for {SILENT_S:.0f} s{model.refusal}"
