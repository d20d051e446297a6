"""The client of the benchmark: N connections that post images one after the other, in one light process.

A window of measurement lies inside a longer run, so that neither the first nor the last requests of it are special.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil

from loadtests.load.http_client import NoResponseError, Pool, Target
from loadtests.load.workload import Workload
from loadtests.results.stats import percentile
from loadtests.results.validation import judge

_TIMEOUT_S = 30.0
# After a failed request, so that a server that rejects everything is not flooded.
_PAUSE_S = 0.05


@dataclass
class Window:
    """What came back in a window of measurement.

    ``latencies_ms`` are those of correct answers; ``faults`` counts the other outcomes by reason; the CPU seconds
    are the server's, this client's own and the whole machine's in the window.
    """

    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    rejected: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    server_cpu_s: float = 0.0
    client_cpu_s: float = 0.0
    machine_cpu_s: float = 0.0

    def summary(self) -> dict[str, float]:
        """Return rates, percentiles and costs; NaN where nothing was answered."""
        images = len(self.latencies_ms)
        return {
            "images_per_s": images / self.seconds,
            "p50_ms": percentile(self.latencies_ms, 0.5),
            "p99_ms": percentile(self.latencies_ms, 0.99),
            "cpu_s_per_1000": 1000 * self.server_cpu_s / images if images else float("nan"),
            "client_cpu_share": self.client_cpu_s / self.seconds,
            "others_cpu_share": max(0.0, self.machine_cpu_s - self.server_cpu_s - self.client_cpu_s) / self.seconds,
            "images": images,
            "rejected": self.rejected,
            "faults": sum(self.faults.values()),
        }


def measure(
    target: Target,
    workload: Workload,
    connections: int,
    warm_up_s: float,
    seconds: float,
    server_cpu_s: Callable[[], float],
) -> Window:
    """Load a server over so many connections and return what came back in the window after the warm-up."""
    return asyncio.run(_measure(target, workload, connections, warm_up_s, seconds, server_cpu_s))


async def _measure(
    target: Target,
    workload: Workload,
    connections: int,
    warm_up_s: float,
    seconds: float,
    server_cpu_s: Callable[[], float],
) -> Window:
    client = _Client(target, workload)
    tasks = [asyncio.create_task(client.post_repeatedly()) for _ in range(connections)]
    try:
        await asyncio.sleep(warm_up_s)
        server_s, client_s, machine_s, start = (
            server_cpu_s(),
            time.process_time(),
            _machine_cpu_s(),
            time.perf_counter(),
        )
        client.window = window = Window()
        await asyncio.sleep(seconds)
        client.window = None
        window.seconds = time.perf_counter() - start
        window.machine_cpu_s = _machine_cpu_s() - machine_s
        window.server_cpu_s, window.client_cpu_s = server_cpu_s() - server_s, time.process_time() - client_s
    finally:
        for task in tasks:
            task.cancel()
        # Cancelled requests end here; any other exception in them is a fault of this client and must be seen.
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        client.pool.close()
    for error in ended:
        if isinstance(error, Exception):
            raise error
    return window


def _machine_cpu_s() -> float:
    """Return the CPU seconds that all processes of the machine, and its kernel, have used so far."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - times.guest - times.guest_nice)


class _Client:
    def __init__(self, target: Target, workload: Workload) -> None:
        self.window: Window | None = None
        self.pool = Pool(target, _TIMEOUT_S)
        self._workload = workload
        self._requests = {item.name: target.request(item.body) for item in workload.items}

    async def post_repeatedly(self) -> None:
        while True:
            item = self._workload.next()
            sent = time.perf_counter()
            try:
                response = await self.pool.exchange(self._requests[item.name])
            except NoResponseError as error:
                self._fault(str(error))
                await asyncio.sleep(_PAUSE_S)
                continue
            elapsed_ms = (time.perf_counter() - sent) * 1000
            outcome = judge(item, response.status, response.body)
            if outcome.kind == "rejected" and self.window:
                self.window.rejected += 1
            elif outcome.kind == "ok" and self.window:
                self.window.latencies_ms.append(elapsed_ms)
            elif outcome.kind in ("wrong", "failed"):
                self._fault(outcome.reason)
                await asyncio.sleep(_PAUSE_S)

    def _fault(self, reason: str) -> None:
        if self.window:
            self.window.faults[reason] += 1
