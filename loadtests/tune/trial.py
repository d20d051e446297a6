"""Trial: one setting on a running service -> the highest rate of Poisson arrivals that meets the target."""

import math
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loadtests.benchmark import client, server, services
from loadtests.benchmark.server import Server, ServerError
from loadtests.load import workers
from loadtests.load.images import Photograph
from loadtests.load.openloop import Limits
from loadtests.load.shapes import Stage
from loadtests.load.target import Target
from loadtests.load.workload import Traffic
from loadtests.results import expected_labels, summary
from loadtests.results.expected_labels import CalibrationError
from loadtests.results.run_record import RunRecord
from loadtests.results.summary import Point, Slo
from loadtests.tune import setting as settings
from loadtests.tune.setting import Setting

# Enough to fill the batches of every setting; what comes back over them is what the rates are guessed from.
_CONNECTIONS = 32
_WARM_UP_S = 1.0
_ALONE_S = 2.0
# The search halves this range, as shares of what the connections got; four halvings leave 4 %.
_LOWEST, _HIGHEST = 0.4, 1.08
_HALVINGS = 4
_MISSES = 2


@dataclass(frozen=True)
class Workload:
    """What every trial sends and must meet; ``seconds`` is how long each rate is tried."""

    archive: Path
    name: str
    photographs: tuple[Photograph, ...]
    slo: Slo
    seconds: int
    seed: int = 0


@dataclass(frozen=True)
class Result:
    """What a setting held.

    ``rate`` per second, and the percentiles in ms at that rate (NaN where no rate was held); ``capacity`` is the rate
    over 32 connections, ``alone_ms`` the median of one request at a time. ``error`` says why there is nothing else.
    """

    setting: Setting
    rate: float = 0.0
    p50_ms: float = math.nan
    p99_ms: float = math.nan
    capacity: float = 0.0
    alone_ms: float = math.nan
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Result":
        """Return what `to_json` stored."""
        return cls(**{**content, "setting": Setting(**content["setting"])})


def run(setting: Setting, workload: Workload) -> Result:
    """Start a service with a setting and measure it; a service that does not start or answer is a result too."""
    with tempfile.TemporaryDirectory(prefix="visionserve-tune-") as folder:
        store = Path(folder, "store")
        store.mkdir()
        settings.write_archive(workload.archive, store / f"{workload.name}.mar", setting)
        launch = services.our_launch(store, workload.name)
        try:
            with server.running(launch, Path(folder, "log")) as service:
                service.first_answer(workload.photographs[0].body)
                return _measure(setting, service, workload)
        except (ServerError, CalibrationError) as error:
            return Result(setting, error=str(error).splitlines()[0])


def _measure(setting: Setting, service: Server, workload: Workload) -> Result:
    labels = dict(expected_labels.calibrate(service.target, workload.photographs).labels)
    traffic = Traffic(workload.photographs, labels, seed=workload.seed)
    alone = client.measure(service.target, traffic, 1, _WARM_UP_S, _ALONE_S, service.cpu_s).summary()
    full = client.measure(service.target, traffic, _CONNECTIONS, _WARM_UP_S, workload.seconds, service.cpu_s).summary()
    rates = plan(service.target, workload.photographs, labels, workload.seed)
    capacity = full["images_per_s"]
    held = highest(rates, capacity, workload)
    if held is None:
        return Result(setting, capacity=capacity, alone_ms=alone["p50_ms"])
    return Result(setting, held.stage.level, held.p50_ms, held.p99_ms, capacity, alone["p50_ms"])


def plan(target: Target, photographs: tuple[Photograph, ...], labels: dict[str, str], seed: int) -> workers.Plan:
    """Return what a probe sends: Poisson arrivals of sound photographs."""
    return workers.Plan(target, photographs, labels, 0.0, seed, "poisson", Limits())


def highest(rates: workers.Plan, capacity: float, workload: Workload) -> Point | None:
    """Halve the range of rates, each time towards where the target is just met; None when it is met nowhere."""
    low, high, held = _LOWEST * capacity, _HIGHEST * capacity, None
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        point = _met(rates, middle, workload)
        low, high, held = (low, middle, held) if point is None else (middle, high, point)
    return held


def _met(rates: workers.Plan, rate: float, workload: Workload) -> Point | None:
    """Return the point of a rate that meets the target, None when it misses twice.

    A machine that is slow for a moment misses once, and the search would never look above that rate again.
    """
    for _ in range(_MISSES):
        point = _probe(rates, rate, workload)
        if point is not None and point.meets(workload.slo):
            return point
    return None


def _probe(rates: workers.Plan, rate: float, workload: Workload) -> Point | None:
    stages = [Stage("probe", rate, workload.seconds)]
    sent = workers.run(rates, stages)
    if sent.interrupted:
        raise KeyboardInterrupt
    record = RunRecord("open", "constant", rates.target.url, "poisson", stages, {}, "", ledger=sent.ledger)
    record.starts_s.append(sent.start_s)
    return next(iter(summary.points(record)), None)
