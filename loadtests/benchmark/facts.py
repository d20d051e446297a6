"""Facts about the machine that numbers are worth nothing without."""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "torchvision", "onnxruntime", "onnxruntime-gpu", "openvino", "torchserve", "numpy", "pillow")
# Above this, something else runs on the machine, or has just ended.
BUSY = 0.5


def gather() -> dict[str, Any]:
    """Return date, processor, cores, memory, system, versions and revision."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": _versions(),
        "revision": _revision(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def sentence(facts: dict[str, Any]) -> str:
    """Return the facts as one line under a table."""
    versions = facts["versions"]
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{facts['date']}; {facts['processor']}, {facts['usable_cores']} cores, {facts['memory_gb']:g} GB; "
        f"Python {facts['python']}, {named}; revision {facts['revision']}."
    )


def _processor() -> str:
    """Return the processor's name and what of it matters for int8."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    known = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = known.get("flags", "").split()
    fast = [name for name in ("avx512_vnni", "avx_vnni", "amx_int8") if name in flags]
    family = f"family {known.get('cpu family', '?')} model {known.get('model', '?')}"
    return f"{known.get('model name', 'unknown')} ({', '.join([family, *fast])})"


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _revision() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else f"unknown (Python {sys.version_info.major})"
