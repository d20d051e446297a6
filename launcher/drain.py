"""Drain: waits until stopping loses nothing that was accepted.

Not ready -> the delay, for load balancers to notice -> every worker has answered a new probe (so everything queued
before it is answered) and no client has sent anything since, nor waits for the rest of an answer -> stop.
A client that keeps an idle connection open does not hold this up.
"""

import sys
import time
from collections.abc import Callable, Collection
from typing import Literal

from launcher import tcp_info
from launcher.workers import WorkerMonitor

DrainResult = Literal["idle", "timed out", "interrupted"]
# A client that pauses for longer in the middle of its request is not waited for.
_QUIET_S = 0.3
# The kernel counts in ticks of up to ten milliseconds.
_TICK_S = 0.02
_POLL_S = 0.05
# From a worker's answers of one batch to the last of them written by the front end.
_SETTLED_S = 0.15


class Drain:
    """Waits until the service is idle; ``interrupted`` sleeps so many seconds and returns whether to stop at once."""

    def __init__(
        self,
        monitor: WorkerMonitor,
        ports: Collection[int],
        interrupted: Callable[[float], bool],
        clock: Callable[[], float] = time.monotonic,
        busy: Callable[[Collection[int], float], bool] = tcp_info.busy,
    ) -> None:
        self._monitor = monitor
        self._ports = ports
        self._interrupted = interrupted
        self._clock = clock
        self._busy = busy

    def wait(self, delay_s: float, timeout_s: float) -> DrainResult:
        """Return when nothing is in flight, when the time is over, or when interrupted."""
        # A drain that was requested before has used up its delay, not the time for answers.
        delayed_until = self._monitor.begin_drain() + delay_s
        deadline = max(delayed_until, self._clock()) + timeout_s
        if not self._until(lambda: self._clock() >= delayed_until, deadline):
            return "interrupted"
        while self._clock() < deadline:
            since = self._monitor.probe_all()
            if not self._until(lambda since=since: self._answered(since), deadline):  # type: ignore[misc]
                return "interrupted"
            # Answers to requests in the last probe's batch may not be on the wire yet.
            answered_at = self._clock()
            if not self._until(lambda at=answered_at: self._clock() >= at + _SETTLED_S, deadline):  # type: ignore[misc]
                return "interrupted"
            if self._clock() < deadline and not self._clients_wait(since):
                return "idle"
        return "timed out"

    def _until(self, reached: Callable[[], bool], deadline: float) -> bool:
        """Wait for a condition or the deadline; False when interrupted."""
        while not reached() and self._clock() < deadline:
            if self._interrupted(_POLL_S):
                return False
        return True

    def _answered(self, since: float) -> bool:
        return self._clock() >= since + _QUIET_S and self._monitor.all_answered(since)

    def _clients_wait(self, since: float) -> bool:
        try:
            return self._busy(self._ports, self._clock() - since + _TICK_S)
        except OSError as error:
            print(
                f"The kernel does not report connections ({error}): stopping when the workers are idle.",
                file=sys.stderr,
            )
            return False
