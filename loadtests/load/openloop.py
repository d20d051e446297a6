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


@dataclass(frozen=True)
class Limits:
    """``timeout_s`` per request; with ``connections`` requests under way the next one waits, and the wait counts."""

    timeout_s: float = 10.0
    connections: int = 512


class OpenLoop:
    """Sends a workload to a target at given times; due time 0 is at ``started_s``, in seconds since 1970."""

    def __init__(
        self, target: Target, workload: Workload, limits: Limits | None = None, start_s: float | None = None
    ) -> None:
        self._limits = limits or Limits()
        self._workload = workload
        self._requests = {item.name: target.request(item.body) for item in workload.items}
        self._target = target
        self.stats = RequestStats()
        # Whole seconds: a stage of the load then fills whole seconds of the statistics.
        self.started_s = float(int(time.time()) + 1) if start_s is None else start_s

    def run(self, due_times: Iterable[float], name: str = "generator", progress: Progress | None = None) -> None:
        """Send a request at each of the due times (seconds from the start) and wait for the last answer.

        Args:
            name: of this process, under which its CPU seconds are recorded.
            progress: called about once a second with the statistics so far.
        """
        asyncio.run(self._run(due_times, name, progress))

    async def _run(self, due_times: Iterable[float], name: str, progress: Progress | None) -> None:
        loop = asyncio.get_running_loop()
        origin = loop.time() + self.started_s - time.time()
        pool = Pool(self._target, self._limits.timeout_s)
        free = asyncio.Semaphore(self._limits.connections)
        under_way: set[asyncio.Task[None]] = set()
        watch = loop.create_task(self._watch(name, progress))
        try:
            for due_s in due_times:
                await asyncio.sleep(max(0.0, origin + due_s - loop.time()))
                item, at_s = self._workload.next(), self.started_s + due_s
                task = loop.create_task(self._send(pool, free, item, origin + due_s, at_s))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            if under_way:
                await asyncio.wait(under_way)
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            pool.close()

    async def _watch(self, name: str, progress: Progress | None) -> None:
        """At each whole second record the CPU time of the second that has ended, and report the progress."""
        cpu_s, second = time.process_time(), int(time.time())
        try:
            while True:
                await asyncio.sleep(second + 1 - time.time())
                now_cpu_s, now_second = time.process_time(), int(time.time())
                self.stats.record_cpu(second, name, now_cpu_s - cpu_s, now_second - second)
                cpu_s, second = now_cpu_s, max(now_second, second + 1)
                if progress:
                    progress(self.stats)
        finally:
            self.stats.record_cpu(second, name, time.process_time() - cpu_s, 1)

    async def _send(self, pool: Pool, free: asyncio.Semaphore, item: Item, due: float, at_s: float) -> None:
        """Send one request that was due at ``due`` (the loop's clock), ``at_s`` since 1970, and record its outcome."""
        loop = asyncio.get_running_loop()
        sent = due
        try:
            async with free:
                sent = loop.time()
                response = await pool.exchange(self._requests[item.name])
                outcome = judge(item, response.status, response.body, response.server_timing)
        except NoResponseError as error:
            outcome = Outcome("failed", str(error))
        except asyncio.CancelledError:  # what was slow must not vanish with an interrupted run
            outcome = Outcome("unanswered", "no answer yet when the run was interrupted")
        end = loop.time()
        self.stats.record(at_s, outcome, (end - due) * 1000, (end - sent) * 1000)
