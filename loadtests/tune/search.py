"""Search: shipped settings first, then one axis after the other, then around the best; each trial is recorded."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from math import comb, inf
from pathlib import Path
from statistics import median

from loadtests.tune import setting as settings
from loadtests.tune.setting import Setting
from loadtests.tune.trial import Result

# All settings get the same arrivals in a round, and each round gets its own.
Trial = Callable[[Setting, int], Result]
Say = Callable[[str], None]
FILE_NAME = "trials.jsonl"
# Less than this is noise: the setting that came first stays.
_BETTER = 1.02
# A better setting is worth a profile of its own from this median ratio on.
WORTH_IT = 1.05
# The round of the search; the last comparison has rounds 1, 2, ...
SEARCH = 0
_RISK = 0.05


@dataclass(frozen=True)
class Entry:
    """A trial in the log: ``purpose`` is ``search``, or ``final N`` for a round of the last comparison."""

    purpose: str
    result: Result


class TrialLog:
    """Trials on disk, one JSON object a line: what is in it is not measured again."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []
        self.entries = [_entry(line) for line in lines if line.endswith("}")]  # a killed run leaves half a line
        self._path.write_text("".join(_line(entry) for entry in self.entries), encoding="utf-8")

    def measured(self, purpose: str, setting: Setting, trial: Trial, round_: int) -> Result:
        """Return the result of a setting for a purpose, measured now or read from the log."""
        for entry in self.entries:
            if entry.purpose == purpose and entry.result.setting == setting:
                return entry.result
        entry = Entry(purpose, trial(setting, round_))
        self.entries.append(entry)
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(_line(entry))
        return entry.result

    def results(self, purpose: str) -> list[Result]:
        """Return the results whose purpose starts with this."""
        return [entry.result for entry in self.entries if entry.purpose.startswith(purpose)]


def search(shipped: Setting, cores: int, trial: Trial, log: TrialLog, say: Say, device: str = "cpu") -> Result:
    """Return the best result: the highest sustained rate."""

    def tried(setting: Setting) -> Result:
        result = log.measured("search", setting, trial, SEARCH)
        say(f"{setting}: {outcome(result)}")
        return result

    best = tried(shipped)
    for axis in settings.axes(shipped, cores, device):
        for candidate in settings.axes(best.setting, cores, device)[axis]:
            best = _better(best, tried(candidate))
    for candidate in settings.around(best.setting):
        best = _better(best, tried(candidate))
    return best


@dataclass(frozen=True)
class Comparison:
    """The second setting's rate as a multiple of the first's: one ratio per round, their median, its lower bound.

    The bound is an order statistic of the ratios: whatever their distribution, it lies above the true median in at
    most 5 % of comparisons (David & Nagaraja, Order Statistics, 7.1). So a profile for an equal or worse setting is
    written in at most 5 %, because that takes a bound above 1.
    """

    ratios: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """The median ratio."""
        return median(self.ratios)

    @property
    def lower(self) -> float:
        """What the median ratio exceeds with 95 % confidence; 0 when there are too few rounds for any bound."""
        rank = bound_rank(len(self.ratios))
        return sorted(self.ratios)[rank - 1] if rank else 0.0

    @property
    def better(self) -> bool:
        """Whether the second setting is certainly better, and by enough to matter."""
        return self.lower > 1 and self.ratio > WORTH_IT


def bound_rank(rounds: int) -> int:
    """Return which of so many ordered values is a lower bound of their median with 95 % confidence; 0 for none."""
    rank, tail = 0, 0.0
    while (tail := tail + comb(rounds, rank) / 2**rounds) <= _RISK:
        rank += 1
    return rank


def compare(first: Setting, second: Setting, rounds: int, trial: Trial, log: TrialLog, say: Say) -> Comparison:
    """Measure two settings in paired rounds, with the same arrivals; every other round begins with the second."""
    ratios = []
    for round_ in range(1, rounds + 1):
        rates = {}
        for setting in (first, second) if round_ % 2 else (second, first):
            result = log.measured(f"final {round_}", setting, trial, round_)
            say(f"round {round_}, {setting}: {outcome(result)}")
            rates[setting] = result.rate
        ratios.append(_ratio(rates[second], rates[first]))
    return Comparison(tuple(ratios))


def _ratio(rate: float, reference: float) -> float:
    """Return a ratio of rates; equal where neither setting met the target at any rate."""
    if reference:
        return rate / reference
    return inf if rate else 1.0


def outcome(result: Result) -> str:
    """Return a result in words."""
    if result.error:
        return f"did not serve: {result.error}"
    if not result.rate:
        return f"met the target at no rate ({result.capacity:.0f}/s over 32 connections)"
    return f"sustains {result.rate:.0f}/s, p99 {result.p99_ms:.0f} ms; alone p50 {result.alone_ms:.1f} ms"


def _better(best: Result, other: Result) -> Result:
    return other if other.rate > best.rate * _BETTER else best


def _entry(line: str) -> Entry:
    content = json.loads(line)
    return Entry(content["purpose"], Result.from_json(content["result"]))


def _line(entry: Entry) -> str:
    return json.dumps({"purpose": entry.purpose, "result": entry.result.to_json()}) + "\n"
