"""Summary: a run's ledger -> one point per stage -> whether the targets are met, and where the knee is."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.load.shapes import Stage
from loadtests.results.run_record import RunRecord
from loadtests.results.stats import Tally

# A generator that used more than this share of a core could not have sent faster.
_SATURATED = 0.85
# More users that add less than this share to the answers per second only make the queue longer.
_GAIN = 0.05


@dataclass(frozen=True)
class Slo:
    """The targets: latency in ms that 99 % stay below, and the share of requests that may fail, 0-1."""

    p99_ms: float
    error_share: float


@dataclass(frozen=True)
class Point:
    """One stage: rates per second, percentiles in ms (NaN without an answer), counts, mean ms by part of the way."""

    stage: Stage
    sent_rate: float
    ok_rate: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    longest_ms: float
    ok: int
    refused: int
    wrong: int
    failed: int
    parts_ms: dict[str, float]

    @property
    def error_share(self) -> float:
        """Of all requests but the provoked refusals: those that failed or got a wrong label."""
        counted = self.ok + self.wrong + self.failed
        return (self.wrong + self.failed) / counted if counted else 1.0

    def meets(self, slo: Slo) -> bool:
        """Say whether both targets are met."""
        return self.p99_ms <= slo.p99_ms and self.error_share <= slo.error_share


@dataclass(frozen=True)
class Verdict:
    """Whether every judged stage met the targets; ``misses`` says which did not, and by what."""

    met: bool
    misses: tuple[str, ...]


def points(record: RunRecord) -> list[Point]:
    """Return a point for each stage that was begun."""
    found = []
    last_s = max(record.ledger.seconds, default=0) + 1
    for stage, start_s in zip(record.stages, record.starts_s, strict=False):
        # Locust's users come one by one and its processes begin a little apart: the first second is theirs.
        settling_s = 1 if record.loop == "closed" and stage.seconds > 1 else 0
        end_s = min(start_s + stage.seconds, last_s) if record.interrupted else start_s + stage.seconds
        tally = record.ledger.between(start_s + settling_s, end_s)
        if tally.outcomes:
            found.append(_point(stage, tally, end_s - start_s - settling_s))
    return found


def judge(found: Sequence[Point], slo: Slo) -> Verdict:
    """Hold the judged points against the targets."""
    judged = [point for point in found if point.stage.judged]
    misses = tuple(_miss(point, slo) for point in judged if not point.meets(slo))
    return Verdict(bool(judged) and not misses, misses or (() if judged else ("nothing was measured",)))


def highest_held(found: Sequence[Point], slo: Slo) -> Point | None:
    """Return the last point before the first that misses the targets; None when the first one misses."""
    held = None
    for point in sorted(found, key=lambda point: point.stage.level):
        if not point.meets(slo):
            break
        held = point
    return held


def knee(found: Sequence[Point]) -> Point | None:
    """Return the point after which a higher level adds less than 5 % to the answers per second; None if all add."""
    ordered = sorted(found, key=lambda point: point.stage.level)
    for point, following in itertools.pairwise(ordered):
        if following.ok_rate < point.ok_rate * (1 + _GAIN) and following.stage.level > point.stage.level:
            return point
    return None


def generator_load(record: RunRecord) -> dict[str, float]:
    """Return the share of one core that each generating process used."""
    elapsed_s = record.elapsed_s
    return {name: cpu_s / elapsed_s for name, cpu_s in record.ledger.cpu_s.items()} if elapsed_s else {}


def bottleneck(record: RunRecord) -> str | None:
    """Return a sentence when the generator itself limited the load; None when it did not."""
    busiest = max(generator_load(record).values(), default=0.0)
    if busiest < _SATURATED:
        return None
    name = "Locust" if record.loop == "closed" else "The generator"
    return (
        f"{name} itself was the bottleneck: one of its processes used {busiest:.0%} of a core. These numbers are the "
        f"generator's, not the service's; use more --processes, or another machine."
    )


def _point(stage: Stage, tally: Tally, seconds: float) -> Point:
    latency, outcomes = tally.latency, tally.outcomes
    return Point(
        stage,
        sum(outcomes.values()) / seconds,
        outcomes["ok"] / seconds,
        latency.percentile(0.5),
        latency.percentile(0.95),
        latency.percentile(0.99),
        latency.longest_ms if latency.count else math.nan,
        outcomes["ok"],
        outcomes["refused"],
        outcomes["wrong"],
        outcomes["failed"],
        parts(tally),
    )


def parts(tally: Tally) -> dict[str, float]:
    """Return where the mean answer spent its time, in ms; empty when the service sends no Server-Timing.

    The service says ``decode`` (this photograph), ``inference`` (its batch) and ``total`` (its batch, all in all). What
    the total holds beyond them is its batch mates' decoding and the writing of answers; what the request took beyond
    the total, it spent in queues and on the way.
    """
    if not tally.timed:
        return {}
    decode, inference, total = (tally.timings[name] / tally.timed for name in ("decode", "inference", "total"))
    service = tally.timed_ms / tally.timed
    waited = max(0.0, tally.latency.mean_ms - tally.service.mean_ms)
    return {
        "waiting to be sent": waited,
        "queue and transport": max(0.0, service - total),
        "decode": decode,
        "batch mates": max(0.0, total - decode - inference),
        "inference": inference,
    }


def _miss(point: Point, slo: Slo) -> str:
    said = []
    if not point.p99_ms <= slo.p99_ms:
        said.append(f"p99 {point.p99_ms:.0f} ms, target {slo.p99_ms:g} ms")
    if point.error_share > slo.error_share:
        said.append(f"{point.error_share:.2%} errors, target {slo.error_share:.2%}")
    return f"{point.stage.name} at {point.stage.level:g}: {'; '.join(said)}"
