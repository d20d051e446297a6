"""Table: measurements of all rounds -> medians with their spread, and ratios paired by round, as Markdown."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from loadtests import machine as machine
from loadtests.benchmark.rounds import CEILINGS, Measurement

_HEAD = ("", "32 connections", "8", "1", "p50 at 1", "p99 at 8", "p99 at 32", "CPU-s / 1,000", "memory", "first answer")
_UNITS = ("", "images/s", "images/s", "images/s", "ms", "ms", "ms", "at 32", "MB", "s")
_PRODUCT = "visionserve"
_BOTH = "decode + engine"
_ONE, _RESTED = "one at a time", "one after a rest"
# Of one core: the kernel's own work for the server (interrupts, the network) stays below this.
_OTHERS = 0.15
Get = Callable[[Measurement], float | None]


def markdown(measurements: Sequence[Measurement], facts: dict[str, Any], sent: str) -> str:
    """Return the whole result: the table, the ratios, the ceilings, and what it was measured on."""
    good = [entry for entry in measurements if "error" not in entry]
    names = list(dict.fromkeys(entry["subject"] for entry in good if entry["subject"] != CEILINGS))
    rounds = len({entry["round"] for entry in good})
    lines = [
        "| " + " | ".join(_HEAD) + " |",
        "|---" + "|---:" * (len(_HEAD) - 1) + "|",
        "| " + " | ".join(_UNITS) + " |",
    ]
    lines += [_ceiling_row(good, name) for name in ("decode", "engine", _BOTH)]
    lines += ["| " + " | ".join(_service_row(_of(good, name), name)) + " |" for name in names]
    lines += ["", f"Medians of {rounds} interleaved rounds (lowest-highest). {sent}. {machine.sentence(facts)}"]
    lines += _busy(good)
    lines += ["", *ratios(good, names), "", *_notes(good), *_faults(measurements)]
    return "\n".join(lines).rstrip() + "\n"


def ratios(good: Sequence[Measurement], names: Sequence[str]) -> list[str]:
    """Return how visionserve compares with the others and with the ceiling, as a table."""
    if _PRODUCT not in names:
        return []
    lines = ["| visionserve, as a multiple of | 32 connections | 8 connections |", "|---|---:|---:|"]
    for name in names:
        if name != _PRODUCT:
            cells = [_paired(good, _rate(count), name, _rate(count)) for count in ("32", "8")]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    cells = [_paired(good, _rate(count), CEILINGS, _ceiling(_BOTH, "images_per_s")) for count in ("32", "8")]
    return [*lines, f"| the ceiling: decode + engine, in process | {' | '.join(cells)} |"]


def spread(values: Iterable[float | None], digits: int = 0) -> str:
    """Return the median and, of several values, the lowest and highest; "-" without any."""
    numbers = [value for value in values if value is not None]
    if not numbers:
        return "-"
    median = f"{statistics.median(numbers):,.{digits}f}"
    return f"{median} ({min(numbers):,.{digits}f}-{max(numbers):,.{digits}f})" if len(numbers) > 1 else median


def _service_row(entries: Sequence[Measurement], name: str) -> list[str]:
    return [
        f"**{name}**" if name == _PRODUCT else name,
        *(spread(map(_rate(count), entries)) for count in ("32", "8", "1")),
        *(
            _median(entries, _window(count, key), 1)
            for count, key in (("1", "p50_ms"), ("8", "p99_ms"), ("32", "p99_ms"))
        ),
        _median(entries, _window("32", "cpu_s_per_1000"), 1),
        _median(entries, lambda entry: entry["memory_mb"], 0),
        spread((entry["first_answer_s"] for entry in entries), 1),
    ]


def _ceiling_row(good: Sequence[Measurement], name: str) -> str:
    entries = _of(good, CEILINGS)
    alone = _median(entries, _ceiling(_ONE if name == _BOTH else name, "p50_ms"), 1) if name != "engine" else "-"
    cells = [
        f"ceiling: {name}, in process",
        spread(map(_ceiling(name, "images_per_s"), entries)),
        "",
        "",
        alone,
        "",
        "",
    ]
    return "| " + " | ".join([*cells, _median(entries, _ceiling(name, "cpu_s_per_1000"), 1), "", ""]) + " |"


def _notes(good: Sequence[Measurement]) -> list[str]:
    product, ceilings = _of(good, _PRODUCT), _of(good, CEILINGS)
    added, above_after_rest = (
        _differences(good, _window("1", "p50_ms"), _ceiling(name, "p50_ms")) for name in (_ONE, _RESTED)
    )
    notes = [f"- One request at a time: {spread(added, 1)} ms above decode + engine in process."] if added else []
    if above_after_rest:
        notes.append(f"- The same above decode + engine after 5 ms of rest: {spread(above_after_rest, 1)} ms.")
    mixed = [entry for entry in product if "with_invalid" in entry]
    if mixed:
        share = [entry["with_invalid"]["images_per_s"] / (_rate("32")(entry) or 1) for entry in mixed]
        faults = sum(int(entry["with_invalid"]["faults"]) for entry in mixed)
        notes.append(
            f"- With invalid bodies among the images: {spread(share, 2)} of the rate without, {faults} faults."
        )
    if ceilings:
        ratio = spread(map(_ceiling("12 megapixels", "ratio"), ceilings), 1)
        notes.append(f"- A synthetic 12-megapixel image: decode and resize {ratio} x as fast as Pillow's full decode.")
    share = [_window("32", "client_cpu_share")(entry) for entry in good if "windows" in entry]
    return [
        *notes,
        f"- The client, on the same cores, used {spread(share, 2)} of one at 32 connections; it is not in CPU-s.",
    ]


def _faults(measurements: Sequence[Measurement]) -> list[str]:
    lines = []
    for entry in measurements:
        if "error" in entry:
            first = str(entry["error"]).splitlines()[0]
            lines.append(f"- Round {entry['round']}: {entry['subject']} failed: {first}")
        faults = sum(int(window["faults"]) for window in entry.get("windows", {}).values())
        if faults:
            lines.append(f"- Round {entry['round']}: {entry['subject']} gave {faults} requests no correct answer.")
    return lines


def _busy(good: Sequence[Measurement]) -> list[str]:
    """Return a warning where other processes used so much of the cores that the numbers are unreliable."""
    shares = [window["others_cpu_share"] for entry in good for window in entry.get("windows", {}).values()]
    shares += [1 - share for entry in _of(good, CEILINGS) if (share := _ceiling(_BOTH, "cpu_share")(entry)) is not None]
    disturbed = sum(share > _OTHERS for share in shares)
    if not disturbed:
        return []
    sentence = f"other processes used more than {_OTHERS:.0%} of a core in {disturbed} of {len(shares)} windows"
    return ["", f"**Do not quote: {sentence} (at most {max(shares):.0%}).**"]


def _of(good: Sequence[Measurement], name: str) -> list[Measurement]:
    return [entry for entry in good if entry["subject"] == name]


def _rate(count: str) -> Get:
    return _window(count, "images_per_s")


def _window(count: str, key: str) -> Get:
    def get(entry: Measurement) -> float | None:
        value: float | None = entry["windows"].get(count, {}).get(key)
        return value

    return get


def _ceiling(name: str, key: str) -> Get:
    def get(entry: Measurement) -> float | None:
        value: float | None = entry["ceilings"].get(name, {}).get(key)
        return value

    return get


def _pairs(good: Sequence[Measurement], get: Get, other: str, other_get: Get) -> list[tuple[float, float]]:
    """Return visionserve's value and another's from the same rounds."""
    rounds = {entry["round"]: other_get(entry) for entry in _of(good, other)}
    pairs = [(get(entry), rounds.get(entry["round"])) for entry in _of(good, _PRODUCT)]
    return [(left, right) for left, right in pairs if left is not None and right]


def _paired(good: Sequence[Measurement], get: Get, other: str, other_get: Get) -> str:
    return spread((left / right for left, right in _pairs(good, get, other, other_get)), 2)


def _differences(good: Sequence[Measurement], get: Get, ceiling: Get) -> list[float]:
    return [left - right for left, right in _pairs(good, get, CEILINGS, ceiling)]


def _median(entries: Sequence[Measurement], get: Get, digits: int) -> str:
    values = [value for entry in entries if (value := get(entry)) is not None]
    return f"{statistics.median(values):,.{digits}f}" if values else "-"
