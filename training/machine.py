"""What a figure was measured on: processor, cores, memory, accelerator, versions, and how busy the machine was."""

import datetime
import os
import platform
import re
from pathlib import Path
from typing import Any

import torch

from training.data.cache import memory


def facts() -> dict[str, Any]:
    """Return the machine's facts; sizes in GB (1e9 bytes)."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(memory() / 1e9, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "load_before": round(os.getloadavg()[0], 2),
    }


def sentence(known: dict[str, Any]) -> str:
    """Return the facts as one line under a table; a busy machine is said to be one."""
    busy = "" if known["load_before"] < 0.5 else "; **the machine was busy with other work: these rates are too low**"
    return (
        f"{known['date']}; {known['processor']}, {known['cores']} cores, {known['memory_gb']:g} GB, "
        f"{known['gpu'] or 'no GPU'}; torch {known['torch']}, {known['threads']} threads; "
        f"load before {known['load_before']:g}{busy}."
    )


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()
