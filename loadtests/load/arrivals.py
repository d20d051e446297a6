"""Arrivals: when requests are due in an open loop, whether or not earlier ones were answered."""

import random
from collections.abc import Iterator, Sequence

from loadtests.load.shapes import Stage


def poisson(stages: Sequence[Stage], seed: int = 0) -> Iterator[float]:
    """Yield due times in seconds from the start, ascending: independent clients, ``level`` per second in each stage.

    Gaps are exponential with mean 1 / level. They have no memory, so starting anew with each stage changes nothing; and
    several such processes side by side are again one, so a rate can be shared out among them.
    """
    source = random.Random(seed)
    start = 0.0
    for stage in stages:
        due = start + source.expovariate(stage.level) if stage.level else start + stage.seconds
        while due < start + stage.seconds:
            yield due
            due += source.expovariate(stage.level)
        start += stage.seconds


def even(stages: Sequence[Stage]) -> Iterator[float]:
    """Yield due times in seconds from the start, ascending, evenly spaced within each stage."""
    start = 0.0
    for stage in stages:
        count = round(stage.level * stage.seconds)
        yield from (start + (place + 0.5) * stage.seconds / count for place in range(count))
        start += stage.seconds
