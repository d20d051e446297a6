"""Facts about the machine that a measurement cannot be interpreted without."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "torchvision", "onnxruntime", "onnxruntime-gpu", "openvino", "torchserve", "numpy", "pillow")
# Above this load average something else runs on the machine, or has just ended.
BUSY = 0.5


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def gather() -> dict[str, Any]:
    """Return date, processor, cores, memory, system, versions, revision and the load before the measurement."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": _versions(),
        "revision": _revision(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def sentence(facts: dict[str, Any]) -> str:
    """Return the facts as one line under a table."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return (
        f"{facts['date']}; {facts['processor']}, {facts['usable_cores']} cores, {facts['memory_gb']:g} GB; "
        f"Python {facts['python']}, {versions}; revision {facts['revision']}."
    )


def short() -> str:
    """Return host, cores and load in a few words."""
    return f"{platform.node()}, {usable_cores()} cores, load {os.getloadavg()[0]:.1f} before the run"


def busy_warning(facts: dict[str, Any]) -> str | None:
    """Return a warning when something else was running on the machine before the measurement."""
    load = facts["load_before"]
    return f"CAUTION: the machine is not idle (load {load:g}); speeds will be too low." if load > BUSY else None


def nvidia_smi(query: str) -> str | None:
    """Return figures of the first GPU, separated by commas; None where the tool is missing or fails."""
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits", "--id=0"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    """Return the processor's name and which instructions it has for int8."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = fields.get("flags", "").split()
    int8 = [name for name in ("avx512_vnni", "avx_vnni", "amx_int8") if name in flags]
    family = f"family {fields.get('cpu family', '?')} model {fields.get('model', '?')}"
    return f"{fields.get('model name', 'unknown')} ({', '.join([family, *int8])})"


def _versions() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _revision() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"
