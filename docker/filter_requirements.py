"""Select what an image installs of a locked requirement set: everything except what its device never loads.

`python docker/filter_requirements.py requirements/run.txt --device cpu` prints the remaining lines, hashes included.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

# Compiles GPU kernels; serving never uses torch's compiler.
_COMPILER = r"triton"
# The CUDA runtime stays: torch's smaller libraries link it.
_CUDA = r"cuda-.*|nvidia-(?!cuda-runtime).*"
# Usage reporting of OpenVINO's conversion tools.
_TELEMETRY = r"openvino-telemetry"
EXCLUDED = {
    "cpu": re.compile(rf"{_COMPILER}|{_CUDA}|{_TELEMETRY}"),
    "gpu": re.compile(rf"{_COMPILER}|{_TELEMETRY}"),
}
_TORCH = re.compile(r"torch|torchvision|nvidia-.*")
_NAME = re.compile(r"[a-z0-9._-]+")


def main(arguments: list[str] | None = None) -> int:
    """Print the entries to install; return a process exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("locked", type=Path, help="a lock file of requirements/")
    parser.add_argument("--device", choices=sorted(EXCLUDED), required=True)
    torch = parser.add_mutually_exclusive_group()
    torch.add_argument("--without-torch", action="store_true", help="exclude torch too: it comes from another index")
    torch.add_argument(
        "--only-torch", action="store_true", help="print only torch's and torchvision's versions, without hashes"
    )
    args = parser.parse_args(arguments)
    entries = list(select(args.locked.read_text(encoding="utf-8"), args.device))
    if args.only_torch:
        entries = [version(entry) for entry in entries if _name(entry) in ("torch", "torchvision")]
    elif args.without_torch:
        entries = [entry for entry in entries if not _TORCH.fullmatch(_name(entry))]
    print("\n".join(entries))
    return 0


def select(text: str, device: str) -> Iterator[str]:
    """Yield the entries of a locked set that a device's image installs."""
    for entry in re.split(r"\n(?=\S)", text.strip()):
        if not EXCLUDED[device].fullmatch(_name(entry)):
            yield entry


def version(entry: str) -> str:
    """Return "name==version" of an entry."""
    return entry.split(maxsplit=1)[0]


def _name(entry: str) -> str:
    name = _NAME.match(entry)
    if name is None:
        raise ValueError(f"not a requirement: {entry!r}")
    return name[0]


if __name__ == "__main__":
    sys.exit(main())
