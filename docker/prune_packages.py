"""Slim: remove from an image's packages what serving never loads, in files: headers, tools, engines for other devices.

`python docker/prune_packages.py SITE_PACKAGES --device cpu`; `filter_requirements.py` has left out whole packages.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

# For compiling against these packages, or testing them.
_EVERYWHERE = (
    "torch/bin/*",
    "torch/include",
    "torch/share",
    "openvino/cmake",
    "openvino/include",
    "nvidia/*/include",
    "numpy/_core/include",
    "numpy/**/tests",
    "onnxruntime/transformers",
    "onnxruntime/quantization",
    "onnxruntime/tools",
    # Torch reasons with these about the networks that it compiles; serving compiles none.
    "mpmath*",
    "networkx*",
    "sympy*",
    # Models are ONNX files.
    "openvino/libs/libopenvino_*_frontend.so*",
)
# Torch asks for its manager of shared memory at each start.
_KEPT = ("libopenvino_onnx_frontend", "libopenvino_ir_frontend", "torch_shm_manager")
# For Intel's GPUs and neural processors: not used under either device.
_OTHER_DEVICES = (
    "openvino/libs/cache.json",
    "openvino/libs/libopenvino_intel_gpu_plugin.so",
    "openvino/libs/libopenvino_intel_npu_plugin.so",
)
_TENSORRT = "onnxruntime/capi/libonnxruntime_providers_tensorrt.so"
REMOVED = {
    "cpu": (*_EVERYWHERE, *_OTHER_DEVICES, "onnxruntime/capi/libonnxruntime_providers_cuda.so", _TENSORRT),
    "gpu": (*_EVERYWHERE, *_OTHER_DEVICES, _TENSORRT),
}
# A fifth of it is names for debuggers. The others are small, or were edited in ways that strip does not survive.
_STRIP = "/usr/bin/strip"
_STRIPPED = "torch/lib/libtorch_cpu.so"


def main(arguments: list[str] | None = None) -> int:
    """Remove the files below a site-packages folder; return a process exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("packages", type=Path, help="the site-packages folder")
    parser.add_argument("--device", choices=sorted(REMOVED), required=True)
    options = parser.parse_args(arguments)
    before = size(options.packages)
    remove(options.packages, REMOVED[options.device])
    strip(options.packages / _STRIPPED)
    print(f"{options.packages}: {before / 1e6:.0f} MB, now {size(options.packages) / 1e6:.0f} MB")
    return 0


def remove(packages: Path, patterns: tuple[str, ...]) -> None:
    """Remove every file and folder that a pattern matches; a pattern that matches none is an error in the list.

    Raises:
        ValueError: nothing matches, so the packages have changed and the list must be looked at again.
    """
    for pattern in patterns:
        found = [path for path in packages.glob(pattern) if not path.name.startswith(_KEPT)]
        if not found and not pattern.startswith("nvidia/"):
            raise ValueError(f"nothing in {packages} matches {pattern}: adapt {Path(__file__).name} to these packages")
        for path in found:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def strip(library: Path) -> None:
    """Remove the symbols that only debuggers read, in a new file: the old one may be an installer's cache."""
    slim = library.with_suffix(".slim")
    subprocess.run([_STRIP, "--strip-unneeded", "-o", str(slim), str(library)], check=True)
    slim.replace(library)


def size(folder: Path) -> int:
    """Return the bytes of the files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


if __name__ == "__main__":
    sys.exit(main())
