"""Workers: the open loop in one process, or shared between several, whose Poisson streams add up to one."""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace

from loadtests.load import shapes
from loadtests.load.http_client import Target
from loadtests.load.images import EncodedImage
from loadtests.load.openloop import Limits, OpenLoop, Progress
from loadtests.load.shapes import Stage
from loadtests.load.workload import Workload
from loadtests.results.stats import RequestStats


@dataclass(frozen=True)
class Plan:
    """What to send where; ``expected`` labels by image name; ``arrivals`` are even or poisson."""

    target: Target
    images: tuple[EncodedImage, ...]
    expected: dict[str, str]
    invalid_share: float
    seed: int
    arrivals: str
    limits: Limits


@dataclass(frozen=True)
class Sent:
    """What became of the requests; ``start_s`` is since 1970; ``interrupted`` when Ctrl-C ended it early."""

    start_s: float
    stats: RequestStats
    interrupted: bool


def run(plan: Plan, stages: Sequence[Stage], processes: int = 1, progress: Progress | None = None) -> Sent:
    """Run stages one after the other without a gap."""
    if processes == 1:
        return _generate(plan, stages, 0, progress)
    parts = [replace(stage, level=stage.level / processes) for stage in stages]
    context = multiprocessing.get_context("spawn")  # a fork would copy the parent's threads' locks
    with ProcessPoolExecutor(processes, context) as pool:
        results = [_result(future) for future in [pool.submit(_generate, plan, parts, n) for n in range(processes)]]
    total = RequestStats()
    for sent in results:
        total.merge(sent.stats)
    return Sent(min(sent.start_s for sent in results), total, any(sent.interrupted for sent in results))


def _generate(plan: Plan, stages: Sequence[Stage], process: int, progress: Progress | None = None) -> Sent:
    seed = plan.seed * 1000 + process
    due = shapes.even(stages) if plan.arrivals == "even" else shapes.poisson(stages, seed)
    workload = Workload(plan.images, plan.expected, plan.invalid_share, seed)
    loop = OpenLoop(plan.target, workload, plan.limits)
    interrupted = False
    try:
        loop.run(due, f"generator {process}", progress)
    except KeyboardInterrupt:
        interrupted = True
    return Sent(loop.started_s, loop.stats, interrupted)


def _result(future: Future[Sent]) -> Sent:
    """Return what a process sent; Ctrl-C reaches it too, and it then returns what it has."""
    try:
        return future.result()
    except KeyboardInterrupt:
        return future.result()
