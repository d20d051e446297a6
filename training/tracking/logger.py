"""Lightning's logger of a run: logs each point once, retries when the tracker is unavailable, never ends a training."""

import logging
import time
from argparse import Namespace
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from training.data.cache import Pixels
from training.tracking.tracker import State, Tracker

PAUSE_S = 60.0  # a server that hangs would cost a timeout at every point otherwise
MOST_WAITING = 1000  # images among them: some hundred MB at worst
_log = logging.getLogger(__name__)


class TrackerLogger(Logger):
    """Hands what Lightning logs to a tracker.

    A resumed run repeats points that were logged before it was stopped: those are left out. What a tracker does not
    take waits and is offered again a minute later, in its order; the first failure is a warning.
    """

    def __init__(self, tracker: Tracker, state: State, folder: Path) -> None:
        super().__init__()
        self._tracker, self._state, self._folder = tracker, state, folder
        self._waiting: deque[Callable[[], None]] = deque(maxlen=MOST_WAITING)
        self._not_before = 0.0
        self._warned = False

    @property
    def name(self) -> str:
        """The tracker's name."""
        return self._state.tracker

    @property
    def version(self) -> str:
        """What the tracker calls the run."""
        return self._state.id

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        """Do nothing: the recipe was logged when the run began."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log points of curves, except those that were logged before."""
        at = step or 0
        fresh = {name: float(value) for name, value in metrics.items() if self._is_new(name, at)}
        if fresh:
            self._send(partial(self._tracker.metrics, fresh, at), tuple(fresh), at)

    @rank_zero_only
    def log_image(self, name: str, pixels: Pixels, step: int) -> None:
        """Log an image, (H, W, 3) uint8."""
        if self._is_new(name, step):
            self._send(partial(self._tracker.image, name, pixels, step), (name,), step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Offer what waits once more and close the tracker's run."""
        self._offer()
        if self._waiting:
            _log.warning("%s stayed unavailable: %d entries are lost", self.name, len(self._waiting))
        try:
            self._tracker.close(status)
        except Exception as error:  # noqa: BLE001  # see _offer
            self._warn(error)

    def _is_new(self, name: str, step: int) -> bool:
        return step > self._state.logged.get(name, -1)

    def _send(self, job: Callable[[], None], names: tuple[str, ...], step: int) -> None:
        self._waiting.append(partial(self._deliver, job, names, step))
        if time.monotonic() >= self._not_before:
            self._offer()

    def _offer(self) -> None:
        try:
            while self._waiting:
                self._waiting[0]()
                self._waiting.popleft()
        except Exception as error:  # noqa: BLE001  # each tracker's library has errors of its own
            self._not_before = time.monotonic() + PAUSE_S
            self._warn(error)

    def _deliver(self, job: Callable[[], None], names: tuple[str, ...], step: int) -> None:
        job()
        self._state.sent += 1
        self._state.logged |= dict.fromkeys(names, step)
        self._state.save(self._folder)

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            _log.warning("%s fails (%s): the training goes on, it will be retried", self.name, sentence(error))
        self._warned = True


def sentence(error: Exception) -> str:
    """Return the first line of an error's message, short enough to stand in a sentence."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]
