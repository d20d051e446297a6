"""Limits: what this process may use, read from its cgroups (version 1 or 2), and what follows for TorchServe.

A container is told its share of a machine by cgroups alone; the number of cores that it sees is the machine's.
"""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
_MB = 1_000_000
# Measured as PSS, 2026-11-21: a warm worker of the shipped model is at 450 MB. A photograph of as many pixels as the
# limits allow needs 150 MB more while it is decoded.
_WORKER_BYTES = 600 * _MB
# Measured the same way: the launcher takes 25 MB, a JVM that has just started 190 MB, its first heap in it.
_FIXED_BYTES = 300 * _MB
_LEAST_HEAP_BYTES = 128 * _MB
# Version 1 says "no limit" with a number near 2**63.
_UNLIMITED_BYTES = 1 << 60


@dataclass(frozen=True)
class Plan:
    """How a server is cut to its limits: workers of a CPU model, the JVM's processors, its heap in bytes or None."""

    workers: int
    processors: int
    heap_bytes: int | None


def plan(cpus: float, memory_bytes: int | None) -> Plan:
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


def cpus(root: Path = ROOT, membership: Path = MEMBERSHIP) -> float:
    """Return how many cores may be used at a time: the smaller of affinity and quota."""
    quotas = [quota for folder in _folders(root, membership, "cpu") if (quota := _quota(folder)) is not None]
    return min([float(len(os.sched_getaffinity(0))), *quotas])


def memory_bytes(root: Path = ROOT, membership: Path = MEMBERSHIP) -> int | None:
    """Return the memory limit, or None where there is none."""
    names = ("memory.max", "memory.limit_in_bytes")
    texts = [_text(folder / name) for folder in _folders(root, membership, "memory") for name in names]
    found = [int(text) for text in texts if text.isdecimal() and int(text) < _UNLIMITED_BYTES]
    return min(found, default=None)


def fit_vmargs(vmargs: str, chosen: Plan) -> str:
    """Return JVM options with the plan's processors, and with its heap where that is smaller than what they say."""
    kept = [option for option in vmargs.split() if not option.startswith("-XX:ActiveProcessorCount=")]
    if chosen.heap_bytes is not None:
        kept = [_capped(option, chosen.heap_bytes) for option in kept]
    return " ".join([*kept, f"-XX:ActiveProcessorCount={chosen.processors}"])


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


def _folders(root: Path, membership: Path, controller: str) -> Iterator[Path]:
    """Yield the folders whose limits hold for this process: its own and those above it, for either version.

    Inside a container the path that is named may exist on the host only; the root is then the container's own.
    """
    for line in _text(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = root / controller if controllers else root
        inner = Path(path.lstrip("/"))
        yield from (base / folder for folder in [inner, *inner.parents] if ".." not in folder.parts)


def _quota(folder: Path) -> float | None:
    """Return a folder's quota in cores, or None when it sets none."""
    words = _text(folder / "cpu.max").split() or [_text(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
    if len(words) != 2 or not all(word.isdecimal() and int(word) > 0 for word in words):
        return None
    return int(words[0]) / int(words[1])


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
