"""Search: shipped settings first, then one axis after the other, then around the best; each trial is recorded."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from loadtests.tune import setting as settings
from loadtests.tune.setting import Setting
from loadtests.tune.trial import Result

Trial = Callable[[Setting], Result]
Say = Callable[[str], None]
FILE_NAME = "trials.jsonl"
# Less than this is noise: the setting that came first stays.
_BETTER = 1.02


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

    def measured(self, purpose: str, setting: Setting, trial: Trial) -> Result:
        """Return the result of a setting for a purpose, measured now or read from the log."""
        for entry in self.entries:
            if entry.purpose == purpose and entry.result.setting == setting:
                return entry.result
        entry = Entry(purpose, trial(setting))
        self.entries.append(entry)
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(_line(entry))
        return entry.result

    def results(self, purpose: str) -> list[Result]:
        """Return the results whose purpose starts with this."""
        return [entry.result for entry in self.entries if entry.purpose.startswith(purpose)]


def search(shipped: Setting, cores: int, trial: Trial, log: TrialLog, say: Say) -> Result:
    """Return the best result: the highest sustained rate."""

    def tried(setting: Setting) -> Result:
        result = log.measured("search", setting, trial)
        say(f"{setting}: {outcome(result)}")
        return result

    best = tried(shipped)
    for axis in settings.axes(shipped, cores):
        for candidate in settings.axes(best.setting, cores)[axis]:
            best = _better(best, tried(candidate))
    for candidate in settings.around(best.setting):
        best = _better(best, tried(candidate))
    return best


def compare(first: Setting, second: Setting, rounds: int, trial: Trial, log: TrialLog, say: Say) -> float:
    """Measure two settings in turns; return the ratio of the second's median rate to the first's."""
    rates: dict[Setting, list[float]] = {first: [], second: []}
    for round_ in range(1, rounds + 1):
        for setting in (first, second):
            result = log.measured(f"final {round_}", setting, trial)
            say(f"round {round_}, {setting}: {outcome(result)}")
            rates[setting].append(result.rate)
    return median(rates[second]) / median(rates[first]) if median(rates[first]) else float("inf")


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
