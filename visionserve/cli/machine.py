"""Machine: how much of it this process may use."""

import contextlib
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def cores(cgroup: Path = _CGROUP) -> int:
    """Return how many cores this process may use: its affinity, bounded by the quota of its container."""
    allowed = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):
        quota, period = (cgroup / "cpu.max").read_text().split()
        allowed = min(allowed, max(1, round(int(quota) / int(period))))
    return allowed


def memory_bytes(cgroup: Path = _CGROUP, meminfo: Path = Path("/proc/meminfo")) -> int:
    """Return how much memory is free for new processes, bounded by the container's limit."""
    found = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    free = int(found["MemAvailable"].split()[0]) * 1024
    with contextlib.suppress(OSError, ValueError):
        limit, used = (int((cgroup / name).read_text()) for name in ("memory.max", "memory.current"))
        free = min(free, limit - used)
    return free
