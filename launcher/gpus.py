"""GPUs: translates CUDA_VISIBLE_DEVICES into values that TorchServe accepts.

Its Java takes whole numbers only and crashes on the UUIDs and MIG names that schedulers hand out. It gets their number
instead, and the workers, which pass them to CUDA, get the names under another variable (handlers/image_handler.py).
"""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping

from launcher.settings import SetupError

VISIBLE = "CUDA_VISIBLE_DEVICES"
FOR_WORKERS = "VISIONSERVE_CUDA_VISIBLE_DEVICES"
_NUMBER = "TS_NUMBER_OF_GPU"
_TIMEOUT_S = 30


def listing(environment: Mapping[str, str]) -> str:
    """Return what `nvidia-smi -L` prints; empty without a driver."""
    program = shutil.which("nvidia-smi", path=environment.get("PATH", os.defpath))
    if program is None:
        return ""
    try:
        process = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return process.stdout if process.returncode == 0 else ""


def count(listed: str, visible: str | None) -> int:
    """Return how many of the GPUs in a listing may be used, given CUDA_VISIBLE_DEVICES."""
    gpus = len(re.findall(r"(?m)^GPU \d+:", listed))
    if visible is None:
        return gpus
    return min(gpus, len([name for name in visible.split(",") if name.strip() and not name.strip().startswith("-")]))


def for_torchserve(environment: Mapping[str, str], listed: str) -> dict[str, str]:
    """Return ``environment`` with the names of GPUs replaced by what TorchServe and the handler need.

    Raises:
        SetupError: a name that `nvidia-smi -L` does not list.
    """
    names = [name.strip() for name in environment.get(VISIBLE, "").split(",") if name.strip()]
    if all(re.fullmatch(r"-?\d+", name) for name in names):
        return dict(environment)
    uuids = re.findall(r"\(UUID: ([^)\s]+)\)", listed)
    for name in names:
        # CUDA takes a UUID's beginning for the whole.
        if not name.isdecimal() and not any(uuid.startswith(name) for uuid in uuids):
            raise SetupError(f"{VISIBLE} names {name}, which `nvidia-smi -L` does not list: correct or unset it.")
    rest = {name: value for name, value in environment.items() if name != VISIBLE}
    # A process sees one MIG instance at most, whatever is listed.
    number = 1 if any(name.startswith("MIG-") for name in names) else len(names)
    return {**rest, FOR_WORKERS: ",".join(names), _NUMBER: str(number)}
