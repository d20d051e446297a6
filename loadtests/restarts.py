"""`python -m loadtests.restarts`: how many requests does a restart lose? Ours beside stock TorchServe, as a table.

Two backends behind nginx, photographs at a steady rate whatever the answers (open loop). One backend after the other
is told to stop; a moment later the load balancer leaves it out, as a cluster's endpoints follow late; when it has
ended it is started again. A request is lost when its client does not get the answer that it should have got.
"""

import argparse
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests.load import images
from loadtests.load.openloop import Limits, OpenLoop
from loadtests.load.target import Target
from loadtests.load.workload import Traffic
from loadtests.restart_backends import (
    Backend,
    BackendError,
    Balancer,
    Ours,
    Stock,
    balanced,
    wait_until_ready,
    workplace,
)

KINDS = ("ours", "stock")
_LOST, _FAILED = 1, 3
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Plan:
    """How often to restart under how much load; the balancer notices ``lag_s`` after the stop was asked for."""

    restarts: int
    requests: int
    rate: float
    lag_s: float
    sizes: str = "2400x1800"


@dataclass(frozen=True)
class Found:
    """What became of the requests; ``reasons`` counts the lost ones by kind, ``slowest_s`` is the longest answer."""

    name: str
    restarts: int
    requests: int
    lost: int
    reasons: Counter[str]
    slowest_s: float


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison, print the table; 1 when ours lost a request."""
    options = _parser().parse_args(arguments)
    plan = Plan(options.restarts, options.requests, options.rate, options.lag, options.sizes)
    found = []
    try:
        for kind in options.only.split(","):
            found.append(run(kind, options.archive.resolve(), plan))
            print(f"{kind}: {found[-1].requests} requests, {found[-1].lost} lost", file=sys.stderr)
    except BackendError as error:
        print(error, file=sys.stderr)
        return _FAILED
    print(table(found))
    return _LOST if any(entry.lost for entry in found if entry.name == KINDS[0]) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtests.restarts", description=(__doc__ or "").split(": ", 1)[1])
    parser.add_argument("--archive", type=Path, default=Path("model_store/flowers.mar"), help="default: %(default)s")
    parser.add_argument("--restarts", type=int, default=5, help="of one backend after the other (%(default)s)")
    parser.add_argument("--requests", type=int, default=1000, help="at least so many (%(default)s)")
    parser.add_argument("--rate", type=float, default=15, help="requests per second (%(default)s)")
    # Where answers take ten milliseconds, a stop seldom meets one: large photographs keep both backends busy.
    parser.add_argument("--sizes", default="2400x1800", help="of the photographs, as for loadtests run (%(default)s)")
    parser.add_argument("--lag", type=float, default=1.0, help="seconds until the balancer notices (%(default)s)")
    parser.add_argument("--only", default=",".join(KINDS), help="ours, stock or both (%(default)s)")
    return parser


def run(kind: str, archive: Path, plan: Plan) -> Found:
    """Restart backends of a kind under load and return what became of the requests; raises BackendError."""
    photos = images.drawn(images.parse_sizes(plan.sizes), each=2)
    with workplace() as folder:
        store = folder / "store"
        store.mkdir()
        (store / archive.name).symlink_to(archive)
        backends = [_backend(kind, store, archive.stem, folder / str(n), plan, photos[0].body) for n in range(2)]
        balancer = Balancer(folder / "nginx", [backend.port for backend in backends])
        with balanced(backends, balancer):
            target = Target.parse(f"http://127.0.0.1:{balancer.port}/predictions/{archive.stem}")
            load = _Load(OpenLoop(target, Traffic(photos), Limits(_TIMEOUT_S)), plan.rate)
            restart_in_turn(backends, balancer, plan)
            load.finish(plan.requests)
    tally = load.loop.ledger.between(0, time.time() + 1)
    total = sum(tally.outcomes.values())
    return Found(
        kind, plan.restarts, total, total - tally.outcomes["ok"], tally.reasons, tally.latency.longest_ms / 1000
    )


def restart_in_turn(
    backends: Sequence[Backend], balancer: Balancer, plan: Plan, pause: Callable[[float], None] = time.sleep
) -> None:
    """Stop and start backends in turn, so often."""
    for number in range(plan.restarts):
        backend = backends[number % len(backends)]
        pause(1.0)
        backend.ask_to_stop()
        pause(plan.lag_s)
        balancer.leave_out(backend.port)
        backend.wait_for_end()
        backend.start()
        wait_until_ready(backend)
        balancer.leave_out()


def table(found: Sequence[Found]) -> str:
    """Return the findings as a Markdown table."""
    lines = ["| | restarts | requests | lost | how | slowest answer |", "|---|---|---|---|---|---|"]
    for entry in found:
        how = ", ".join(f"{count} x {reason}" for reason, count in entry.reasons.most_common()) or "-"
        name = {"ours": "ours, SIGTERM", "stock": "stock, `torchserve --stop`"}[entry.name]
        lines.append(
            f"| {name} | {entry.restarts} | {entry.requests} | {entry.lost} | {how} | {entry.slowest_s:.1f} s |"
        )
    return "\n".join(lines)


def _backend(kind: str, store: Path, model: str, folder: Path, plan: Plan, photograph: bytes) -> Backend:
    if kind == "ours":
        return Ours(store, model, folder, drain_delay_s=plan.lag_s + 1)
    if kind == "stock":
        return Stock(store, model, folder, photograph)
    raise BackendError(f"there is no {kind}: choose from {', '.join(KINDS)}")


class _Load:
    """An open loop in a thread, until it is told that it is enough."""

    def __init__(self, loop: OpenLoop, rate: float) -> None:
        self.loop = loop
        self._rate = rate
        self._sent = 0
        self._enough: int | None = None
        self._thread = threading.Thread(target=loop.run, args=(self._due_times(),), daemon=True)
        self._thread.start()

    def finish(self, requests: int) -> None:
        """Send until there were so many, and wait for the answers."""
        self._enough = requests
        self._thread.join()

    def _due_times(self) -> Iterator[float]:
        while self._enough is None or self._sent < self._enough:
            yield self._sent / self._rate
            self._sent += 1


if __name__ == "__main__":
    sys.exit(main())
