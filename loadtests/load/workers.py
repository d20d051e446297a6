"""Workers: the open loop in one process, or shared between several that start together and add up to one."""

import math
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier
from threading import BrokenBarrierError

from loadtests.load import shapes
from loadtests.load.http_client import Target
from loadtests.load.images import EncodedImage
from loadtests.load.openloop import Limits, OpenLoop, Progress
from loadtests.load.shapes import Stage
from loadtests.load.workload import Workload
from loadtests.results.stats import RequestStats

# Importing and preparing the requests takes a second or two; a machine at its limit takes longer.
_READY_S = 120
# From when all are ready until the start, so that nobody is late.
_LEAD_S = 0.3


class GeneratorError(Exception):
    """A generator process ended by itself, or did not start; the message says what to do."""


@dataclass(frozen=True)
class Plan:
    """What to send where; ``expected`` labels by image name; ``arrivals`` are even or poisson."""

    target: Target
    images: tuple[EncodedImage, ...]
    expected: dict[str, str]
    invalid_share: float
    seed: tuple[int, ...]
    arrivals: str
    limits: Limits


@dataclass(frozen=True)
class Sent:
    """What became of the requests; ``start_s`` is since 1970; ``interrupted`` when Ctrl-C ended it early."""

    start_s: float
    stats: RequestStats
    interrupted: bool


def run(plan: Plan, stages: Sequence[Stage], processes: int = 1, progress: Progress | None = None) -> Sent:
    """Run stages one after the other without a gap, all processes from the same whole second on.

    Raises:
        GeneratorError: one of several processes was killed, or was not ready in two minutes.
    """
    if processes == 1:
        return _generate(plan, stages, 0, 1, _next_second(), progress)
    context = multiprocessing.get_context("spawn")  # a fork would copy the parent's threads' locks
    start_s = context.Value("d", 0.0)
    barrier = context.Barrier(processes, partial(_set_start, start_s))
    with ProcessPoolExecutor(processes, context, _remember, (barrier, start_s)) as pool:
        futures = [pool.submit(_generate_together, plan, stages, process, processes) for process in range(processes)]
        try:
            results = [_result(future) for future in futures]
        except (BrokenProcessPool, BrokenBarrierError) as error:
            text = "a generator process was killed or not ready in time: is memory short? Use fewer --processes"
            raise GeneratorError(text) from error
    total = RequestStats()
    for sent in results:
        total.merge(sent.stats)
    return Sent(max(sent.start_s for sent in results), total, any(sent.interrupted for sent in results))


def due_times(plan: Plan, stages: Sequence[Stage], process: int, processes: int) -> Iterator[float]:
    """Return when one of several processes sends, in seconds from the start."""
    if plan.arrivals == "even":
        return shapes.even(stages, process, processes)
    parts = [replace(stage, level=stage.level / processes) for stage in stages]
    return shapes.poisson(parts, plan.seed, process)


def _generate(
    plan: Plan, stages: Sequence[Stage], process: int, processes: int, start_s: float, progress: Progress | None = None
) -> Sent:
    workload = Workload(plan.images, plan.expected, plan.invalid_share, plan.seed, process)
    loop = OpenLoop(plan.target, workload, plan.limits, start_s)
    interrupted = False
    try:
        loop.run(due_times(plan, stages, process, processes), f"generator {process}", progress)
    except KeyboardInterrupt:
        interrupted = True
    return Sent(loop.started_s, loop.stats, interrupted)


# In a generator process: the barrier at which all wait, and the start that the last one sets.
_together: tuple[Barrier, "Synchronized[float]"] | None = None


def _remember(barrier: Barrier, start_s: "Synchronized[float]") -> None:
    global _together
    _together = (barrier, start_s)


def _set_start(start_s: "Synchronized[float]") -> None:
    start_s.value = _next_second()


def _generate_together(plan: Plan, stages: Sequence[Stage], process: int, processes: int) -> Sent:
    if _together is None:
        raise RuntimeError("the pool's initializer has not run")
    barrier, start_s = _together
    try:
        barrier.wait(_READY_S)
    except KeyboardInterrupt:
        barrier.abort()
        return Sent(0.0, RequestStats(), interrupted=True)
    return _generate(plan, stages, process, processes, start_s.value)


def _next_second() -> float:
    """Return the start, in seconds since 1970: whole, so that a stage fills whole seconds of the statistics."""
    return float(math.ceil(time.time() + _LEAD_S))


def _result(future: Future[Sent]) -> Sent:
    """Return what a process sent; Ctrl-C reaches it too, and it then returns what it has."""
    try:
        return future.result()
    except KeyboardInterrupt:
        return future.result()
