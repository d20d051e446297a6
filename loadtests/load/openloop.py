"""Open loop: requests leave when they are due, however slow the answers are, as independent clients would send them.

Latency counts from when a request was *due*, so the time that it waited for a connection or for this generator is
included, and no request is left out because an earlier one was slow: coordinated omission is corrected. Locust
cannot do this: its users wait for their answers, and its clock starts when a user sends.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from loadtests.load.http_client import NoResponseError, Pool, Target
from loadtests.load.workload import Item, Workload
from loadtests.results.stats import RequestStats
from loadtests.results.validation import Outcome, judge

Progress = Callable[[RequestStats], None]
_TICK_S = 1.0


@dataclass(frozen=True)
class Limits:
    """``timeout_s`` per request; with ``connections`` requests under way the next one waits, and the wait counts."""

    timeout_s: float = 10.0
    connections: int = 512


class OpenLoop:
    """Sends a workload to a target at given times; due time 0 is at ``started_s``, in whole seconds since 1970."""

    def __init__(self, target: Target, workload: Workload, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._workload = workload
        self._requests = {item.name: target.request(item.body) for item in workload.items}
        self._target = target
        self.stats = RequestStats()
        self.started_s = 0.0

    def run(self, due_times: Iterable[float], name: str = "generator", progress: Progress | None = None) -> None:
        """Send a request at each of the due times (seconds from now) and wait for the last answer.

        Args:
            name: of this process, under which its CPU seconds are recorded.
            progress: called about once a second with the statistics so far.
        """
        cpu = time.process_time()
        # Whole seconds: a stage of the load then fills whole seconds of the statistics.
        self.started_s = float(int(time.time()) + 1)
        try:
            asyncio.run(self._run(due_times, self.started_s, progress))
        finally:
            self.stats.cpu_s[name] = self.stats.cpu_s.get(name, 0.0) + time.process_time() - cpu

    async def _run(self, due_times: Iterable[float], start_s: float, progress: Progress | None) -> None:
        loop = asyncio.get_running_loop()
        origin = loop.time() + start_s - time.time()
        pool = Pool(self._target, self._limits.timeout_s)
        free = asyncio.Semaphore(self._limits.connections)
        under_way: set[asyncio.Task[None]] = set()
        reported = loop.time()
        try:
            for due_s in due_times:
                await asyncio.sleep(max(0.0, origin + due_s - loop.time()))
                task = loop.create_task(self._send(pool, free, self._workload.next(), origin + due_s, start_s + due_s))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                if progress and loop.time() - reported >= _TICK_S:
                    reported = loop.time()
                    progress(self.stats)
            if under_way:
                await asyncio.wait(under_way)
        finally:
            pool.close()

    async def _send(self, pool: Pool, free: asyncio.Semaphore, item: Item, due: float, at_s: float) -> None:
        """Send one request that was due at ``due`` (the loop's clock), ``at_s`` since 1970, and record its outcome."""
        loop = asyncio.get_running_loop()
        async with free:
            sent = loop.time()
            try:
                response = await pool.exchange(self._requests[item.name])
                outcome = judge(item, response.status, response.body, response.server_timing)
            except NoResponseError as error:
                outcome = Outcome("failed", str(error))
        end = loop.time()
        self.stats.record(at_s, outcome, (end - due) * 1000, (end - sent) * 1000)
