"""Generators: the open loop in one process or shared out among several, whose Poisson streams add up to one."""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace

from loadtests.load import arrivals
from loadtests.load.images import Photograph
from loadtests.load.openloop import Limits, OpenLoop, Progress
from loadtests.load.shapes import Stage
from loadtests.load.target import Target
from loadtests.load.workload import Traffic
from loadtests.results.stats import Ledger


@dataclass(frozen=True)
class Plan:
    """What to send where; ``expected`` labels by photograph; ``arrivals`` are even or poisson."""

    target: Target
    photographs: tuple[Photograph, ...]
    expected: dict[str, str]
    broken_share: float
    seed: int
    arrivals: str
    limits: Limits


@dataclass(frozen=True)
class Sent:
    """What became of the requests; ``start_s`` is since 1970; ``interrupted`` when Ctrl-C ended it before its time."""

    start_s: float
    ledger: Ledger
    interrupted: bool


def run(plan: Plan, stages: Sequence[Stage], processes: int = 1, progress: Progress | None = None) -> Sent:
    """Run stages one after the other without a gap."""
    if processes == 1:
        return _generate(plan, stages, 0, progress)
    parts = [replace(stage, level=stage.level / processes) for stage in stages]
    context = multiprocessing.get_context("spawn")  # a fork would copy the parent's threads' locks
    with ProcessPoolExecutor(processes, context) as pool:
        results = [_result(future) for future in [pool.submit(_generate, plan, parts, n) for n in range(processes)]]
    total = Ledger()
    for sent in results:
        total.merge(sent.ledger)
    return Sent(min(sent.start_s for sent in results), total, any(sent.interrupted for sent in results))


def _generate(plan: Plan, stages: Sequence[Stage], place: int, progress: Progress | None = None) -> Sent:
    seed = plan.seed * 1000 + place
    due = arrivals.even(stages) if plan.arrivals == "even" else arrivals.poisson(stages, seed)
    traffic = Traffic(plan.photographs, plan.expected, plan.broken_share, seed)
    loop = OpenLoop(plan.target, traffic, plan.limits)
    interrupted = False
    try:
        loop.run(due, f"generator {place}", progress)
    except KeyboardInterrupt:
        interrupted = True
    return Sent(loop.started_s, loop.ledger, interrupted)


def _result(future: Future[Sent]) -> Sent:
    """Return what a process sent; Ctrl-C reaches it too, and it then returns what it has."""
    try:
        return future.result()
    except KeyboardInterrupt:
        return future.result()
