"""Plan: how many workers, and how much memory Java may have, for a number of cores and a memory limit."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

_MB = 1_000_000
# Measured as PSS, 2026-11-21: a warm worker of the shipped model is at 450 MB. An image of as many pixels as the
# limits allow needs 150 MB more while it is decoded.
_WORKER_BYTES = 600 * _MB
# Measured the same way: the launcher takes 25 MB, a JVM that has just started 190 MB, its first heap in it.
_FIXED_BYTES = 300 * _MB
_LEAST_HEAP_BYTES = 128 * _MB
# Java and one worker; below it a start fails.
LEAST_BYTES = _FIXED_BYTES + _WORKER_BYTES


@dataclass(frozen=True)
class Plan:
    """How a server uses its limits: workers of a CPU model, the JVM's processors, its heap in bytes or None."""

    workers: int
    processors: int
    heap_bytes: int | None


def make_plan(cpus: float, memory_bytes: int | None) -> Plan:
    """Return the plan for that many cores and that much memory.

    A worker per core begun, as TorchServe would start them: the last one shares. Heap and direct memory of the JVM
    get half each of what the workers leave.
    """
    processors = max(1, math.ceil(cpus))
    if memory_bytes is None:
        return Plan(processors, processors, None)
    workers = min(processors, max(1, (memory_bytes - _FIXED_BYTES) // _WORKER_BYTES))
    rest = memory_bytes - _FIXED_BYTES - workers * _WORKER_BYTES
    return Plan(workers, processors, max(rest // 2, _LEAST_HEAP_BYTES))


def fit_vmargs(vmargs: str, plan: Plan) -> str:
    """Return JVM options with the plan's processors, and with its heap where that is smaller than what they state."""
    options = [option for option in vmargs.split() if not option.startswith("-XX:ActiveProcessorCount=")]
    if plan.heap_bytes is not None:
        options = [_capped(option, plan.heap_bytes) for option in options]
    return " ".join([*options, f"-XX:ActiveProcessorCount={plan.processors}"])


def _capped(option: str, heap_bytes: int) -> str:
    for name in ("-Xmx", "-XX:MaxDirectMemorySize="):
        if option.startswith(name) and _java_bytes(option.removeprefix(name)) > heap_bytes:
            return f"{name}{heap_bytes >> 20}m"
    return option


def _java_bytes(text: str) -> int:
    """Read a size as Java writes it, "1g" or "512m"."""
    factor: Mapping[str, int] = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
    number, unit = (text[:-1], text[-1].lower()) if text[-1:].isalpha() else (text, "")
    return int(number) * factor.get(unit, 1) if number.isdecimal() else 0
