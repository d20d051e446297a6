"""Resources: the cores and the memory that this process may use, read from its cgroups (version 1 or 2).

In a container only cgroups state its share of the machine; the number of cores that it sees is the machine's.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import psutil

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
# Version 1 says "no limit" with a number near 2**63.
_UNLIMITED_BYTES = 1 << 60
# Of each version: the limit, the usage, and the name in memory.stat of the page cache that can be freed.
_MEMORY_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def cpus(root: Path = ROOT, membership: Path = MEMBERSHIP) -> float:
    """Return how many cores may be used at a time: the smaller of affinity and quota."""
    quotas = [quota for folder in _folders(root, membership, "cpu") if (quota := _quota(folder)) is not None]
    return min([float(len(os.sched_getaffinity(0))), *quotas])


def memory_bytes(root: Path = ROOT, membership: Path = MEMBERSHIP) -> int | None:
    """Return the memory limit, or None where there is none."""
    folders = _folders(root, membership, "memory")
    texts = [_text(folder / limit_file) for folder in folders for limit_file, _, _ in _MEMORY_FILES]
    return min((limit for text in texts if (limit := _limit(text)) is not None), default=None)


def machine_memory_bytes() -> int:
    """Return the memory of the machine."""
    return int(psutil.virtual_memory().total)


def available_memory_bytes(root: Path = ROOT, membership: Path = MEMBERSHIP) -> int:
    """Return how much memory new processes can have: what the machine has available, bounded by every cgroup's limit.

    A cgroup's usage includes page cache; the inactive part of it is freed when memory is needed, so it does not count.
    """
    available = psutil.virtual_memory().available
    for folder in _folders(root, membership, "memory"):
        for limit_file, usage_file, cache in _MEMORY_FILES:
            limit, usage = _limit(_text(folder / limit_file)), _text(folder / usage_file)
            if limit is not None and usage.isdecimal():
                reclaimable = re.search(rf"(?m)^{cache} (\d+)$", _text(folder / "memory.stat"))
                available = min(available, limit - int(usage) + (int(reclaimable[1]) if reclaimable else 0))
    return available


def _limit(text: str) -> int | None:
    return int(text) if text.isdecimal() and int(text) < _UNLIMITED_BYTES else None


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
