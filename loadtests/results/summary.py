"""Summary: a run's statistics -> one point per stage -> whether the targets are met, and where the knee is."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.load.shapes import Stage
from loadtests.results.run_record import Loop, RunRecord
from loadtests.results.stats import IntervalStats

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
    """One stage: rates per second, percentiles in ms, counts, mean ms by part of the way, the generator's load.

    Percentiles are those of answers, NaN without any; ``failed_p50_ms`` is that of the failures. ``generator_share`` is
    the share of one core that the busiest generating process used.
    """

    stage: Stage
    sent_rate: float
    ok_rate: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    longest_ms: float
    ok: int
    rejected: int
    wrong: int
    failed: int
    parts_ms: dict[str, float]
    failed_p50_ms: float = math.nan
    generator_share: float = 0.0

    @property
    def error_share(self) -> float:
        """Of all requests but the rejected invalid bodies: the share that failed or got a wrong label."""
        counted = self.ok + self.wrong + self.failed
        return (self.wrong + self.failed) / counted if counted else 1.0

    def meets(self, slo: Slo) -> bool:
        """Return whether both targets are met."""
        return self.p99_ms <= slo.p99_ms and self.error_share <= slo.error_share


@dataclass(frozen=True)
class Verdict:
    """Whether every judged stage met the targets; ``misses`` says which did not, and by what."""

    met: bool
    misses: tuple[str, ...]


def points(record: RunRecord) -> list[Point]:
    """Return a point for each stage that was begun."""
    result = []
    last_s = max(record.stats.seconds, default=0) + 1
    for stage, start_s in zip(record.stages, record.starts_s, strict=False):
        # Locust's users start one by one and its processes at slightly different times: the first second is left out.
        settling_s = 1 if record.loop == "closed" and stage.seconds > 1 else 0
        end_s = min(start_s + stage.seconds, last_s) if record.interrupted else start_s + stage.seconds
        interval = record.stats.between(start_s + settling_s, end_s)
        if interval.outcomes:
            shares = record.stats.cpu_shares(start_s + settling_s, end_s)
            result.append(_point(stage, interval, end_s - start_s - settling_s, max(shares.values(), default=0.0)))
    return result


def judge(points: Sequence[Point], slo: Slo) -> Verdict:
    """Compare the judged points with the targets."""
    judged = [point for point in points if point.stage.judged]
    misses = tuple(_miss(point, slo) for point in judged if not point.meets(slo))
    return Verdict(bool(judged) and not misses, misses or (() if judged else ("nothing was measured",)))


def highest_held(points: Sequence[Point], slo: Slo) -> Point | None:
    """Return the last point before the first that misses the targets; None when the first one misses."""
    highest = None
    for point in sorted(points, key=lambda point: point.stage.level):
        if not point.meets(slo):
            break
        highest = point
    return highest


def knee(points: Sequence[Point]) -> Point | None:
    """Return the point after which a higher level adds less than 5 % to the answers per second; None if all add."""
    ordered = sorted(points, key=lambda point: point.stage.level)
    for point, following in itertools.pairwise(ordered):
        if following.ok_rate < point.ok_rate * (1 + _GAIN) and following.stage.level > point.stage.level:
            return point
    return None


def bottleneck(points: Sequence[Point], loop: Loop) -> str | None:
    """Return a sentence naming the stages that the generator itself limited; None when it limited none."""
    saturated = [point for point in points if point.generator_share >= _SATURATED]
    if not saturated:
        return None
    name = "Locust" if loop == "closed" else "The generator"
    stages = ", ".join(
        f"{point.stage.name} at {point.stage.level:g} ({point.generator_share:.0%})" for point in saturated
    )
    return (
        f"{name} itself was the bottleneck: one of its processes used most of a core in {stages}. The numbers of these "
        f"stages are the generator's, not the service's; use more --processes, or another machine."
    )


def _point(stage: Stage, interval: IntervalStats, seconds: float, generator_share: float) -> Point:
    latency, outcomes = interval.latency, interval.outcomes
    return Point(
        stage,
        sum(outcomes.values()) / seconds,
        outcomes["ok"] / seconds,
        latency.percentile(0.5),
        latency.percentile(0.95),
        latency.percentile(0.99),
        latency.longest_ms if latency.count else math.nan,
        outcomes["ok"],
        outcomes["rejected"],
        outcomes["wrong"],
        outcomes["failed"],
        parts(interval),
        interval.failures.percentile(0.5),
        generator_share,
    )


def parts(interval: IntervalStats) -> dict[str, float]:
    """Return where the mean answer spent its time, in ms; empty when the service sends no Server-Timing.

    The service reports ``decode`` (this image), ``inference`` (its batch) and ``total`` (everything for its batch). The
    rest of the total is the decoding of the other images in the batch and the writing of answers; the rest of the
    request's time was spent in queues and on the network.
    """
    if not interval.timed:
        return {}
    decode, inference, total = (interval.timings[name] / interval.timed for name in ("decode", "inference", "total"))
    service = interval.timed_ms / interval.timed
    waited = max(0.0, interval.latency.mean_ms - interval.service.mean_ms)
    return {
        "waiting to be sent": waited,
        "queue and transport": max(0.0, service - total),
        "decode": decode,
        "batch mates": max(0.0, total - decode - inference),
        "inference": inference,
    }


def _miss(point: Point, slo: Slo) -> str:
    misses = []
    if not point.p99_ms <= slo.p99_ms:
        misses.append(f"p99 {point.p99_ms:.0f} ms, target {slo.p99_ms:g} ms")
    if point.error_share > slo.error_share:
        misses.append(f"{point.error_share:.2%} errors, target {slo.error_share:.2%}")
    return f"{point.stage.name} at {point.stage.level:g}: {'; '.join(misses)}"
