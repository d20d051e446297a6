"""Shapes: how the load changes, as stages of a level (users or arrivals per second) and a duration; arrival times.

constant  ----      steps  _-^      spike  _|^|__      soak  ----------
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

# A number, or several that are one seed together: (run, round, probe).
Seed = int | tuple[int, ...]
Purpose = Literal["arrivals", "workload"]
PURPOSES: tuple[Purpose, ...] = ("arrivals", "workload")

# A second of queue takes about as long to drain as it took to form; this many seconds are not judged.
_RECOVERY_S = 5


@dataclass(frozen=True)
class Stage:
    """``level`` users (closed loop) or arrivals per second (open loop) for whole ``seconds``.

    ``judged`` stages must meet the targets; the others are only reported.
    """

    name: str
    level: float
    seconds: int
    judged: bool = True

    def __post_init__(self) -> None:
        if self.seconds < 1 or self.level < 0:
            raise ValueError(
                f"a stage needs a level of 0 or more and a second or more, not {self.level}, {self.seconds}"
            )


def constant(level: float, seconds: int) -> list[Stage]:
    """Return one level for one time."""
    return [Stage("constant", level, seconds)]


def steps(first: float, last: float, by: float, seconds: int, hold: float | None = None) -> list[Stage]:
    """Return levels from ``first`` to ``last``; those up to ``hold`` (default: the first) must meet the targets."""
    if by <= 0 or last < first:
        raise ValueError("steps go upwards: --to above --from, --by above 0")
    limit = first if hold is None else hold
    levels = itertools.takewhile(lambda level: level <= last + 1e-9, itertools.count(first, by))
    return [Stage(f"step {number}", level, seconds, level <= limit) for number, level in enumerate(levels, 1)]


def spike(base: float, peak: float, seconds: int, peak_seconds: int = 10) -> list[Stage]:
    """Return a base load, a peak over it, and the base again: what comes after must be as good as what was before."""
    return [
        Stage("before", base, seconds),
        Stage("spike", peak, peak_seconds, judged=False),
        Stage("recovery", base, _RECOVERY_S, judged=False),
        Stage("after", base, seconds),
    ]


def soak(level: float, seconds: int, parts: int = 10) -> list[Stage]:
    """Return one level for a long time in ``parts`` that are judged separately, so that a drift shows."""
    each, rest = divmod(seconds, parts)
    lengths = [each + (part < rest) for part in range(parts)]
    return [Stage(f"part {number}", level, length) for number, length in enumerate(lengths, 1) if length]


def to_text(stages: Sequence[Stage]) -> str:
    """Return stages as ``LEVELxSECONDS,...``, for a command line."""
    return ",".join(f"{stage.level:g}x{stage.seconds}" for stage in stages)


def from_text(text: str) -> list[Stage]:
    """Read ``LEVELxSECONDS,...``; ValueError says what cannot be read."""
    stages = []
    for number, entry in enumerate(text.split(","), 1):
        level, _, seconds = entry.partition("x")
        try:
            stages.append(Stage(f"stage {number}", float(level), int(seconds)))
        except ValueError as error:
            raise ValueError(f"stages are LEVELxSECONDS,..., not {entry!r} ({error})") from None
    return stages


def level_at(stages: Sequence[Stage], elapsed_s: float) -> float | None:
    """Return the level that is due after ``elapsed_s``; None when the stages are over."""
    for stage in stages:
        if elapsed_s < stage.seconds:
            return stage.level
        elapsed_s -= stage.seconds
    return None


def poisson(stages: Sequence[Stage], seed: Seed = 0, process: int = 0) -> Iterator[float]:
    """Yield due times in seconds from the start, ascending: independent clients, ``level`` per second in each stage.

    Gaps are exponential with mean 1 / level. They have no memory, so restarting with each stage changes nothing; and
    several such processes side by side are again one, so a rate can be divided among them.
    """
    rng = random_stream(seed, "arrivals", process)
    start = 0.0
    for stage in stages:
        due = start + rng.exponential(1 / stage.level) if stage.level else start + stage.seconds
        while due < start + stage.seconds:
            yield due
            due += rng.exponential(1 / stage.level)
        start += stage.seconds


def even(stages: Sequence[Stage], process: int = 0, processes: int = 1) -> Iterator[float]:
    """Yield due times in seconds from the start, ascending, evenly spaced within each stage.

    Of several processes each yields every so-many-th time, beginning with its own: together they are one sequence.
    """
    start, number = 0.0, 0
    for stage in stages:
        count = round(stage.level * stage.seconds)
        for i in range(count):
            if number % processes == process:
                yield start + (i + 0.5) * stage.seconds / count
            number += 1
        start += stage.seconds


def random_stream(seed: Seed, purpose: Purpose, process: int = 0) -> np.random.Generator:
    """Return a generator of random numbers that is independent of those for other purposes, processes and seeds.

    What is sent must not depend on when: with one stream for both, large images would follow long gaps.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(process, PURPOSES.index(purpose))))
