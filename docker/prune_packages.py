"""Remove files that serving never loads from an image's packages: headers, tools, engines for other devices.

`python docker/prune_packages.py SITE_PACKAGES --device cpu`; `filter_requirements.py` excludes whole packages.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

# Needed to compile against these packages or to test them.
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
    # The page at /docs loads swagger-ui-bundle.js and swagger-ui.css.
    "swagger_ui/static/swagger-editor*",
    "swagger_ui/static/swagger-ui-es-bundle*",
    # Used by torch's compiler only; serving compiles no network.
    "mpmath*",
    "networkx*",
    "sympy*",
    # Models are ONNX files.
    "openvino/libs/libopenvino_*_frontend.so*",
)
# torch checks for its shared-memory manager at each start.
_KEPT = ("libopenvino_onnx_frontend", "libopenvino_ir_frontend", "torch_shm_manager")
# For Intel's GPUs and NPUs: not used with either device.
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
# A fifth of it is debug symbols. The other libraries are small, or strip would break them.
_STRIP = "/usr/bin/strip"
_STRIPPED = "torch/lib/libtorch_cpu.so"


def main(arguments: list[str] | None = None) -> int:
    """Remove the files below a site-packages folder; return a process exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("packages", type=Path, help="the site-packages folder")
    parser.add_argument("--device", choices=sorted(REMOVED), required=True)
    args = parser.parse_args(arguments)
    before = size(args.packages)
    remove(args.packages, REMOVED[args.device])
    strip(args.packages / _STRIPPED)
    print(f"{args.packages}: {before / 1e6:.0f} MB, now {size(args.packages) / 1e6:.0f} MB")
    return 0


def remove(packages: Path, patterns: tuple[str, ...]) -> None:
    """Remove every file and folder that matches a pattern.

    Raises:
        ValueError: a pattern matches nothing: the packages have changed and the list must be reviewed.
    """
    for pattern in patterns:
        paths = [path for path in packages.glob(pattern) if not path.name.startswith(_KEPT)]
        if not paths and not pattern.startswith("nvidia/"):
            raise ValueError(f"nothing in {packages} matches {pattern}: adapt {Path(__file__).name} to these packages")
        for path in paths:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def strip(library: Path) -> None:
    """Remove debug symbols, into a new file: the old one may be hard-linked into an installer's cache."""
    stripped = library.with_suffix(".stripped")
    subprocess.run([_STRIP, "--strip-unneeded", "-o", str(stripped), str(library)], check=True)
    stripped.replace(library)


def size(folder: Path) -> int:
    """Return the total size in bytes of the files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


if __name__ == "__main__":
    sys.exit(main())
