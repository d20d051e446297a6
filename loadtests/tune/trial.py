"""Trial: one setting on a running service -> the highest rate of Poisson arrivals that meets the target."""

import math
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from loadtests.benchmark import client, server, services
from loadtests.benchmark.server import Server, ServerError
from loadtests.load import workers
from loadtests.load.http_client import Target
from loadtests.load.images import EncodedImage
from loadtests.load.openloop import Limits
from loadtests.load.shapes import Stage
from loadtests.load.workload import Workload
from loadtests.results import summary
from loadtests.results.run_record import RunRecord
from loadtests.results.summary import Point, Slo
from loadtests.results.validation import CalibrationError, calibrate
from loadtests.tune import setting as settings
from loadtests.tune.setting import Setting

# Enough to fill the batches of every setting; their throughput gives the range of rates to search.
_CONNECTIONS = 32
_WARM_UP_S = 1.0
_ALONE_S = 2.0
# The search halves this range, as shares of what the connections got; four halvings leave 4 %.
_LOWEST, _HIGHEST = 0.4, 1.08
_HALVINGS = 4
_MISSES = 2


@dataclass(frozen=True)
class Conditions:
    """What every trial sends and must meet; ``seconds`` is how long each rate is tried."""

    archive: Path
    name: str
    images: tuple[EncodedImage, ...]
    slo: Slo
    seconds: int
    seed: int = 0


@dataclass(frozen=True)
class Result:
    """What a setting sustains.

    ``rate`` per second, and the percentiles in ms at that rate (NaN where no rate met the target); ``capacity`` is
    the rate over 32 connections, ``alone_ms`` the median of one request at a time. ``error``: why numbers are missing.
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


def run(conditions: Conditions, setting: Setting, round_: int) -> Result:
    """Start a service with a setting and measure it; a service that does not start or answer is a result too."""
    with tempfile.TemporaryDirectory(prefix="visionserve-tune-") as folder:
        store = Path(folder, "store")
        store.mkdir()
        settings.write_archive(conditions.archive, store / f"{conditions.name}.mar", setting)
        launch = services.visionserve_launch(store, conditions.name)
        try:
            with server.running(launch, Path(folder, "log")) as service:
                service.first_answer(conditions.images[0].body)
                return _measure(setting, service, conditions, round_)
        except (ServerError, CalibrationError) as error:
            return Result(setting, error=str(error).splitlines()[0])


def _measure(setting: Setting, service: Server, conditions: Conditions, round_: int) -> Result:
    labels = dict(calibrate(service.target, conditions.images).labels)
    workload = Workload(conditions.images, labels, seed=(conditions.seed, round_))
    alone = client.measure(service.target, workload, 1, _WARM_UP_S, _ALONE_S, service.cpu_s).summary()
    full = client.measure(
        service.target, workload, _CONNECTIONS, _WARM_UP_S, conditions.seconds, service.cpu_s
    ).summary()
    rates = plan(service.target, conditions.images, labels, (conditions.seed, round_))
    capacity = full["images_per_s"]
    best = highest(rates, capacity, conditions)
    if best is None:
        return Result(setting, capacity=capacity, alone_ms=alone["p50_ms"])
    return Result(setting, best.stage.level, best.p50_ms, best.p99_ms, capacity, alone["p50_ms"])


def plan(
    target: Target, images: tuple[EncodedImage, ...], labels: dict[str, str], seed: tuple[int, ...]
) -> workers.Plan:
    """Return what a probe sends: Poisson arrivals of valid images."""
    return workers.Plan(target, images, labels, 0.0, seed, "poisson", Limits())


def highest(rates: workers.Plan, capacity: float, conditions: Conditions) -> Point | None:
    """Halve the range of rates, each time towards where the target is just met; None when it is met nowhere."""
    low, high, best = _LOWEST * capacity, _HIGHEST * capacity, None
    for number in range(_HALVINGS):
        middle = (low + high) / 2
        point = _met(rates, middle, conditions, number)
        low, high, best = (low, middle, best) if point is None else (middle, high, point)
    return best


def _met(rates: workers.Plan, rate: float, conditions: Conditions, number: int) -> Point | None:
    """Return the point of a rate that meets the target, None when it misses twice.

    A machine that is slow for a moment misses once, and the search would never look above that rate again. Each attempt
    has its own arrivals, the same for every setting: one pattern's p99 is not the service's.
    """
    for attempt in range(_MISSES):
        point = _probe(replace(rates, seed=(*rates.seed, number, attempt)), rate, conditions)
        if point is not None and point.meets(conditions.slo):
            return point
    return None


def _probe(rates: workers.Plan, rate: float, conditions: Conditions) -> Point | None:
    stages = [Stage("probe", rate, conditions.seconds)]
    sent = workers.run(rates, stages)
    if sent.interrupted:
        raise KeyboardInterrupt
    record = RunRecord("open", "constant", rates.target.url, "poisson", stages, {}, "", stats=sent.stats)
    record.starts_s.append(sent.start_s)
    return next(iter(summary.points(record)), None)
