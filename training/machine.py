"""Machine facts beside every measurement: processor, cores, memory, GPU, versions, and the load before it."""

import datetime
import os
import platform
import re
from pathlib import Path
from typing import Any

import torch


def facts() -> dict[str, Any]:
    """Return the machine's facts; sizes in GB (1e9 bytes)."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(memory() / 1e9, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "load_before": round(os.getloadavg()[0], 2),
    }


def sentence(facts: dict[str, Any]) -> str:
    """Return the facts as one line under a table, with a warning if the machine was busy."""
    busy = "" if facts["load_before"] < 0.5 else "; **the machine was busy with other work: these rates are too low**"
    return (
        f"{facts['date']}; {facts['processor']}, {facts['cores']} cores, {facts['memory_gb']:g} GB, "
        f"{facts['gpu'] or 'no GPU'}; torch {facts['torch']}, {facts['threads']} threads; "
        f"load before {facts['load_before']:g}{busy}."
    )


def memory() -> int:
    """Return the bytes of this machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def processor() -> str:
    """Return the processor's name: the last digits of int8 outputs depend on its instructions."""
    try:
        match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        match = None
    return match[1] if match else platform.processor() or platform.machine()
