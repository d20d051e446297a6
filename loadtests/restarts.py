"""`python -m loadtests restarts`: count the requests that a restart loses, visionserve beside TorchServe alone.

Two backends behind nginx, images at a constant rate whatever the answers (open loop). One backend after the other
gets its signal to stop; a moment later the load balancer removes it, because a cluster's endpoints lag behind; when it
has ended it is started again. A request is lost when its client does not get the answer that it should have got: the
label that its image had before the load, from either backend.
"""

import argparse
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests.load.http_client import Target
from loadtests.load.images import parse_sizes, synthetic_images
from loadtests.load.openloop import Limits, OpenLoop
from loadtests.load.workload import Workload
from loadtests.restart_backends import (
    Backend,
    BackendError,
    Balancer,
    TorchServe,
    Visionserve,
    balanced,
    temporary_folder,
    wait_until_ready,
)
from loadtests.results.validation import CalibrationError, calibrate

KINDS = ("visionserve", "torchserve")
_LOST, _FAILED = 1, 3
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Plan:
    """How often to restart under how much load; the balancer notices ``lag_s`` after the signal to stop."""

    restarts: int
    requests: int
    rate: float
    lag_s: float
    sizes: str = "2400x1800"


@dataclass(frozen=True)
class Result:
    """What became of the requests; ``reasons`` counts the lost ones by kind, ``slowest_s`` is the longest answer."""

    name: str
    restarts: int
    requests: int
    lost: int
    reasons: Counter[str]
    slowest_s: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `restarts`."""
    parser.add_argument("--archive", type=Path, default=Path("model_store/flowers.mar"), help="default: %(default)s")
    parser.add_argument("--restarts", type=int, default=5, help="of one backend after the other (%(default)s)")
    parser.add_argument("--requests", type=int, default=1000, help="at least this many (%(default)s)")
    parser.add_argument("--rate", type=float, default=15, help="requests per second (%(default)s)")
    # Where answers take ten milliseconds, a stop seldom meets one: large images keep both backends busy.
    parser.add_argument("--sizes", default="2400x1800", help="of the images, as for loadtests run (%(default)s)")
    parser.add_argument("--lag", type=float, default=1.0, help="seconds until the balancer notices (%(default)s)")
    parser.add_argument("--only", default=",".join(KINDS), help="visionserve, torchserve or both (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Run the comparison, print the table; 1 when visionserve lost a request."""
    plan = Plan(args.restarts, args.requests, args.rate, args.lag, args.sizes)
    results = []
    try:
        for kind in args.only.split(","):
            results.append(measure(kind, args.archive.resolve(), plan))
            print(f"{kind}: {results[-1].requests} requests, {results[-1].lost} lost", file=sys.stderr)
    except (BackendError, CalibrationError) as error:
        print(error, file=sys.stderr)
        return _FAILED
    print(table(results))
    return _LOST if any(result.lost for result in results if result.name == KINDS[0]) else 0


def measure(kind: str, archive: Path, plan: Plan) -> Result:
    """Restart backends of a kind under load and return what became of the requests.

    Raises:
        BackendError, CalibrationError: a backend did not start, stop or answer every image.
    """
    images = synthetic_images(parse_sizes(plan.sizes), per_size=2)
    with temporary_folder() as folder:
        store = folder / "store"
        store.mkdir()
        (store / archive.name).symlink_to(archive)
        backends = [_backend(kind, store, archive.stem, folder / str(n), plan, images[0].body) for n in range(2)]
        balancer = Balancer(folder / "nginx", [backend.port for backend in backends])
        with balanced(backends, balancer):
            target = Target.parse(f"http://127.0.0.1:{balancer.port}/predictions/{archive.stem}")
            workload = Workload(images, calibrate(target, images).labels)
            load = Load(OpenLoop(target, workload, Limits(_TIMEOUT_S)), plan.rate)
            restart_in_turn(backends, balancer, plan)
            load.finish(plan.requests)
    total = load.loop.stats.between(0, time.time() + 1)
    requests = sum(total.outcomes.values())
    lost = requests - total.outcomes["ok"]
    return Result(kind, plan.restarts, requests, lost, total.reasons, total.latency.longest_ms / 1000)


def restart_in_turn(
    backends: Sequence[Backend], balancer: Balancer, plan: Plan, pause: Callable[[float], None] = time.sleep
) -> None:
    """Stop and start backends in turn, ``plan.restarts`` times."""
    for number in range(plan.restarts):
        backend = backends[number % len(backends)]
        pause(1.0)
        backend.ask_to_stop()
        pause(plan.lag_s)
        balancer.exclude(backend.port)
        backend.wait_for_end()
        backend.start()
        wait_until_ready(backend)
        balancer.exclude()


def table(results: Sequence[Result]) -> str:
    """Return the results as a Markdown table."""
    lines = ["| | restarts | requests | lost | how | slowest answer |", "|---|---|---|---|---|---|"]
    for entry in results:
        how = ", ".join(f"{count} x {reason}" for reason, count in entry.reasons.most_common()) or "-"
        name = {"visionserve": "visionserve, SIGTERM", "torchserve": "TorchServe alone, `torchserve --stop`"}[
            entry.name
        ]
        lines.append(
            f"| {name} | {entry.restarts} | {entry.requests} | {entry.lost} | {how} | {entry.slowest_s:.1f} s |"
        )
    return "\n".join(lines)


def _backend(kind: str, store: Path, model: str, folder: Path, plan: Plan, image: bytes) -> Backend:
    if kind == KINDS[0]:
        return Visionserve(store, model, folder, drain_delay_s=plan.lag_s + 1)
    if kind == KINDS[1]:
        return TorchServe(store, model, folder, image)
    raise BackendError(f"unknown kind of backend {kind!r}: choose from {', '.join(KINDS)}")


class Load:
    """An open loop in a thread, until `finish`."""

    def __init__(self, loop: OpenLoop, rate: float) -> None:
        self.loop = loop
        self._rate = rate
        self._sent = 0
        self._at_least: int | None = None
        self._thread = threading.Thread(target=loop.run, args=(self._due_times(),), daemon=True)
        self._thread.start()

    def finish(self, requests: int) -> None:
        """Send until there were so many requests, and wait for the answers."""
        self._at_least = requests
        self._thread.join()

    def _due_times(self) -> Iterator[float]:
        while self._at_least is None or self._sent < self._at_least:
            yield self._sent / self._rate
            self._sent += 1
