"""Statistics of requests, second by second, in a form that merges over processes and fits into JSON.

A request belongs to the second in which it was due (open loop) or sent (closed loop), so that a step of the load keeps
all of its requests, also those that were answered after it ended. Durations are counted in buckets that grow by two per
cent: a percentile is right to one per cent, whatever the number of requests, processes and machines.
"""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from loadtests.results.validation import Outcome

_GROWTH = math.log(1.02)
_SHORTEST_MS = 0.001


@dataclass
class Histogram:
    """Durations in milliseconds."""

    counts: dict[int, int] = field(default_factory=dict)
    total_ms: float = 0.0
    shortest_ms: float = math.inf
    longest_ms: float = 0.0

    @property
    def count(self) -> int:
        """How many durations were recorded."""
        return sum(self.counts.values())

    @property
    def mean_ms(self) -> float:
        """The exact mean; NaN without any."""
        return self.total_ms / self.count if self.counts else math.nan

    def record(self, duration_ms: float) -> None:
        """Count one duration."""
        bucket = math.floor(math.log(max(duration_ms, _SHORTEST_MS)) / _GROWTH)
        self.counts[bucket] = self.counts.get(bucket, 0) + 1
        self.total_ms += duration_ms
        self.shortest_ms = min(self.shortest_ms, duration_ms)
        self.longest_ms = max(self.longest_ms, duration_ms)

    def merge(self, other: "Histogram") -> None:
        """Add what another one counted."""
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.total_ms += other.total_ms
        self.shortest_ms = min(self.shortest_ms, other.shortest_ms)
        self.longest_ms = max(self.longest_ms, other.longest_ms)

    def percentile(self, share: float) -> float:
        """Return the duration, in ms, that ``share`` (0-1) of all stay at or below (nearest rank); NaN without any."""
        rank = max(1, math.ceil(share * self.count))
        cumulative = 0
        for bucket in sorted(self.counts):
            cumulative += self.counts[bucket]
            if cumulative >= rank:
                middle = math.exp((bucket + 0.5) * _GROWTH)
                return min(max(middle, self.shortest_ms), self.longest_ms)
        return math.nan

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        counts = {str(bucket): count for bucket, count in sorted(self.counts.items())}
        shortest = None if math.isinf(self.shortest_ms) else self.shortest_ms
        return {"counts": counts, "total_ms": self.total_ms, "shortest_ms": shortest, "longest_ms": self.longest_ms}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Histogram":
        """Return what `to_json` stored."""
        counts = {int(bucket): int(count) for bucket, count in content["counts"].items()}
        shortest = content["shortest_ms"]
        return cls(counts, content["total_ms"], math.inf if shortest is None else shortest, content["longest_ms"])


@dataclass
class IntervalStats:
    """Counts and durations of the requests of one second, or of many.

    ``latency`` counts from when a request was due, ``service`` from when it was sent; both are of answers only, right
    or wrong. ``failures`` are the durations, from when they were due, of requests that got none: an instant 429 would
    make the percentiles of answers look good, a time-out would hide them. ``timings`` are sums in ms from
    Server-Timing, over ``timed`` answers, whose service times sum to ``timed_ms``.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    latency: Histogram = field(default_factory=Histogram)
    service: Histogram = field(default_factory=Histogram)
    failures: Histogram = field(default_factory=Histogram)
    timings: Counter[str] = field(default_factory=Counter)
    timed: int = 0
    timed_ms: float = 0.0

    def record(self, outcome: Outcome, latency_ms: float, service_ms: float) -> None:
        """Count one request."""
        self.outcomes[outcome.kind] += 1
        if outcome.reason:
            self.reasons[outcome.reason] += 1
        if outcome.kind == "failed":
            self.failures.record(latency_ms)
        if outcome.kind not in ("ok", "wrong"):
            return
        self.latency.record(latency_ms)
        self.service.record(service_ms)
        if outcome.timings:
            self.timed += 1
            self.timed_ms += service_ms
            self.timings.update(outcome.timings)

    def merge(self, other: "IntervalStats") -> None:
        """Add what another one counted."""
        self.outcomes.update(other.outcomes)
        self.reasons.update(other.reasons)
        for name in _HISTOGRAMS:
            getattr(self, name).merge(getattr(other, name))
        self.timings.update(other.timings)
        self.timed += other.timed
        self.timed_ms += other.timed_ms

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {name: value.to_json() if name in _HISTOGRAMS else value for name, value in vars(self).items()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "IntervalStats":
        """Return what `to_json` stored."""
        counters = {name: Counter(content[name]) for name in ("outcomes", "reasons", "timings")}
        histograms = {name: Histogram.from_json(content[name]) for name in _HISTOGRAMS}
        return cls(**{**content, **counters, **histograms})


_HISTOGRAMS = ("latency", "service", "failures")


@dataclass
class RequestStats:
    """Statistics by second since 1970, and the CPU seconds of each generating process, by its name and by second."""

    seconds: dict[int, IntervalStats] = field(default_factory=dict)
    cpu_s: dict[str, dict[int, float]] = field(default_factory=dict)

    def record(self, at_s: float, outcome: Outcome, latency_ms: float, service_ms: float) -> None:
        """Count a request that was due, or sent, at a time in seconds since 1970."""
        self.seconds.setdefault(int(at_s), IntervalStats()).record(outcome, latency_ms, service_ms)

    def record_cpu(self, second: int, process: str, cpu_s: float, seconds: int = 1) -> None:
        """Count the CPU time that a generating process used in a second, or evenly in ``seconds`` from it on."""
        used = self.cpu_s.setdefault(process, {})
        for each in range(second, second + max(1, seconds)):
            used[each] = used.get(each, 0.0) + cpu_s / max(1, seconds)

    def between(self, start_s: float, end_s: float) -> IntervalStats:
        """Return the sum over the seconds from ``start_s`` until before ``end_s``."""
        total = IntervalStats()
        for second, interval in self.seconds.items():
            if round(start_s) <= second < round(end_s):
                total.merge(interval)
        return total

    def cpu_shares(self, start_s: float, end_s: float) -> dict[str, float]:
        """Return the share of one core that each generating process used between two whole seconds."""
        first, end = round(start_s), round(end_s)
        return {
            name: sum(used for second, used in seconds.items() if first <= second < end) / max(1, end - first)
            for name, seconds in self.cpu_s.items()
        }

    def merge(self, other: "RequestStats") -> None:
        """Add the statistics of another process, or of other seconds."""
        for second, interval in other.seconds.items():
            self.seconds.setdefault(second, IntervalStats()).merge(interval)
        for name, seconds in other.cpu_s.items():
            for second, used in seconds.items():
                self.record_cpu(second, name, used)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        seconds = {str(second): interval.to_json() for second, interval in sorted(self.seconds.items())}
        cpu_s = {name: {str(second): s for second, s in sorted(used.items())} for name, used in self.cpu_s.items()}
        return {"seconds": seconds, "cpu_s": cpu_s}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "RequestStats":
        """Return what `to_json` stored."""
        return cls(
            {int(second): IntervalStats.from_json(interval) for second, interval in content["seconds"].items()},
            {name: {int(second): s for second, s in used.items()} for name, used in content["cpu_s"].items()},
        )


def percentile(values: list[float], share: float) -> float:
    """Return the exact percentile of raw values, by the same nearest rank; NaN without any."""
    if not values:
        return math.nan
    return sorted(values)[max(1, math.ceil(share * len(values))) - 1]
