"""Histogram: durations counted in buckets that grow by two per cent, so it stays small and can be merged and sent.

A percentile is right to one per cent, whatever the number of requests, of processes and of machines that counted them.
"""

import math
from dataclasses import dataclass, field
from typing import Any

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
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= rank:
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


def percentile(values: list[float], share: float) -> float:
    """Return the exact percentile of raw values, by the same nearest rank; NaN without any."""
    if not values:
        return math.nan
    return sorted(values)[max(1, math.ceil(share * len(values))) - 1]
