"""Ledger: what became of every request, second by second, in a form that merges over processes and fits into JSON.

A request belongs to the second in which it was due (open loop) or sent (closed loop), so that a step of the load keeps
all of its requests, also those that were answered after it ended.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from loadtests.results.histogram import Histogram
from loadtests.results.validation import Verdict


@dataclass
class Tally:
    """Counts and durations of the requests of one second, or of many.

    ``latency`` runs from when a request was due, ``service`` from when it was sent; both leave out provoked refusals.
    ``timings`` are sums in ms of what Server-Timing said, over ``timed`` answers, whose service times sum to
    ``timed_ms``.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    latency: Histogram = field(default_factory=Histogram)
    service: Histogram = field(default_factory=Histogram)
    timings: Counter[str] = field(default_factory=Counter)
    timed: int = 0
    timed_ms: float = 0.0

    def record(self, outcome: Verdict, latency_ms: float, service_ms: float) -> None:
        """Count one request."""
        self.outcomes[outcome.kind] += 1
        if outcome.reason:
            self.reasons[outcome.reason] += 1
        if outcome.kind == "refused":
            return
        self.latency.record(latency_ms)
        self.service.record(service_ms)
        if outcome.timings:
            self.timed += 1
            self.timed_ms += service_ms
            self.timings.update(outcome.timings)

    def merge(self, other: "Tally") -> None:
        """Add what another one counted."""
        self.outcomes.update(other.outcomes)
        self.reasons.update(other.reasons)
        self.latency.merge(other.latency)
        self.service.merge(other.service)
        self.timings.update(other.timings)
        self.timed += other.timed
        self.timed_ms += other.timed_ms

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {
            "outcomes": dict(self.outcomes),
            "reasons": dict(self.reasons),
            "latency": self.latency.to_json(),
            "service": self.service.to_json(),
            "timings": dict(self.timings),
            "timed": self.timed,
            "timed_ms": self.timed_ms,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Tally":
        """Return what `to_json` stored."""
        return cls(
            Counter(content["outcomes"]),
            Counter(content["reasons"]),
            Histogram.from_json(content["latency"]),
            Histogram.from_json(content["service"]),
            Counter(content["timings"]),
            content["timed"],
            content["timed_ms"],
        )


@dataclass
class Ledger:
    """Tallies by second since 1970, and the CPU seconds that each generating process used, by its name."""

    seconds: dict[int, Tally] = field(default_factory=dict)
    cpu_s: dict[str, float] = field(default_factory=dict)

    def record(self, at_s: float, outcome: Verdict, latency_ms: float, service_ms: float) -> None:
        """Count a request that was due, or sent, at a time in seconds since 1970."""
        self.seconds.setdefault(int(at_s), Tally()).record(outcome, latency_ms, service_ms)

    def between(self, start_s: float, end_s: float) -> Tally:
        """Return the sum over the seconds from ``start_s`` until before ``end_s``."""
        total = Tally()
        for second, tally in self.seconds.items():
            if round(start_s) <= second < round(end_s):
                total.merge(tally)
        return total

    def merge(self, other: "Ledger") -> None:
        """Add another process's ledger; its CPU seconds replace older ones under the same name."""
        for second, tally in other.seconds.items():
            self.seconds.setdefault(second, Tally()).merge(tally)
        self.cpu_s.update(other.cpu_s)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        seconds = {str(second): tally.to_json() for second, tally in sorted(self.seconds.items())}
        return {"seconds": seconds, "cpu_s": self.cpu_s}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Ledger":
        """Return what `to_json` stored."""
        return cls(
            {int(second): Tally.from_json(tally) for second, tally in content["seconds"].items()},
            dict(content["cpu_s"]),
        )
