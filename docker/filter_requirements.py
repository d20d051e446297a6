"""Locked: what an image installs of a locked requirement set: all of it but what its device never loads.

`python docker/filter_requirements.py requirements/run.txt --device cpu` writes the remaining lines, hashes included.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

# Compiles kernels, which serving never asks torch to do.
_COMPILER = r"triton"
# The runtime stays, for torch's smaller libraries want it.
_CUDA = r"cuda-.*|nvidia-(?!cuda-runtime).*"
# What OpenVINO's conversion tools would report home with.
_TELEMETRY = r"openvino-telemetry"
LEFT_OUT = {
    "cpu": re.compile(rf"{_COMPILER}|{_CUDA}|{_TELEMETRY}"),
    "gpu": re.compile(rf"{_COMPILER}|{_TELEMETRY}"),
}
_TORCH = re.compile(r"torch|torchvision|nvidia-.*")
_NAME = re.compile(r"[a-z0-9._-]+")


def main(arguments: list[str] | None = None) -> int:
    """Print what is to be installed; return a process exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("locked", type=Path, help="a file of requirements/")
    parser.add_argument("--device", choices=sorted(LEFT_OUT), required=True)
    torch = parser.add_mutually_exclusive_group()
    torch.add_argument("--without-torch", action="store_true", help="leave out torch too: it comes from another index")
    torch.add_argument("--only-torch", action="store_true", help="only torch's and torchvision's versions, no hashes")
    options = parser.parse_args(arguments)
    chosen = list(select(options.locked.read_text(encoding="utf-8"), options.device))
    if options.only_torch:
        chosen = [version(entry) for entry in chosen if _name(entry) in ("torch", "torchvision")]
    elif options.without_torch:
        chosen = [entry for entry in chosen if not _TORCH.fullmatch(_name(entry))]
    print("\n".join(chosen))
    return 0


def select(text: str, device: str) -> Iterator[str]:
    """Yield the entries of a locked set that a device's image installs."""
    for entry in re.split(r"\n(?=\S)", text.strip()):
        if not LEFT_OUT[device].fullmatch(_name(entry)):
            yield entry


def version(entry: str) -> str:
    """Return "name==version" of an entry."""
    return entry.split(maxsplit=1)[0]


def _name(entry: str) -> str:
    found = _NAME.match(entry)
    if found is None:
        raise ValueError(f"no requirement: {entry!r}")
    return found[0]


if __name__ == "__main__":
    sys.exit(main())
