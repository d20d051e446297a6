"""Replace the CUDA libraries that torch links but never calls on a CPU by one small stub library.

    torch's remaining libraries --nm--> undefined and defined symbols --> missing symbols --as, ld--> one stub library

PyPI's torch is a CUDA build: the loader resolves 2.9 GB of CUDA libraries before the program starts, used or not.
PyTorch's own CPU index has a build without them; give it as TORCH_INDEX (see the Dockerfile) and this script finds
nothing to do. It is the fallback where only PyPI can be reached.

The stub library defines exactly the missing symbols, under the file names of the removed libraries. Calling one of
them ends the process with a message, so that a wrong result is impossible.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# torch's GPU kernels: linked by torch, and removed.
KERNELS = "libtorch_cuda.so"
# Loaded by Python or by torch itself; every other library is a dependency of these.
_LOADED = ("torch/_C.*.so", "torch/lib/libtorch_global_deps.so", "torchvision/*.so")
_NEEDED = re.compile(r"\(NEEDED\).*\[(.+)\]")
_RESOLVED = re.compile(r"=> (/.+)")
# nm's letters for functions, and for a symbol that must be resolved; w and v (weak) may stay unresolved.
_FUNCTIONS, _UNDEFINED = "TtWi", "U"
_MESSAGE = "was called, which needs a GPU, and this image is for CPUs: use the one built with DEVICE=gpu"
# write(2, text), then an invalid instruction: the process ends with SIGILL and the log says why.
_ABSENT = "absent: mov $1, %eax; mov $2, %edi; syscall; ud2"
# Called while the libraries are loaded, to register a callback: they must return an address to write it to.
_REGISTRIES = ("_ZN4c10d15get_gil_checkerEv",)
_TYPE, _CLASS = "_ZTI", "_ZTVN10__cxxabiv117__class_type_infoE + 16"
_POINTER = 8
# The line of torch/__init__.py after which its libraries are loaded, and what is inserted after it.
_LOADED_LINE = "        _load_global_deps()\n    from torch._C import *  # noqa: F403\n"
_SWITCHES = """\
    _built = sys.modules["torch._C"]
    _built._has_cuda = False
    del _built._c10d_init, _built._rpc_init, _built._cuda_getDeviceCount, _built
"""


@dataclass(frozen=True)
class Symbol:
    """A dynamic symbol: its version ("" for none), nm's letter for its kind, its size in bytes."""

    name: str
    version: str
    kind: str
    size: int

    @property
    def code(self) -> bool:
        """Whether it is a function."""
        return self.kind in _FUNCTIONS


def main(arguments: list[str] | None = None) -> int:
    """Replace the libraries below a site-packages folder; return a process exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("packages", type=Path, help="the site-packages folder that holds torch")
    packages: Path = parser.parse_args(arguments).packages
    kernels = packages / "torch" / "lib" / KERNELS
    if not kernels.exists():
        print(f"{packages} holds a torch without CUDA: nothing to replace.")
        return 0
    names = replace(packages, kernels)
    print(f"stubs replace {KERNELS} and {len(names) - 1} CUDA libraries: {', '.join(sorted(names))}")
    return 0


def replace(packages: Path, kernels: Path) -> set[str]:
    """Put the stub library in place of ``kernels`` and of every missing library; return the names of these."""
    kernel_symbols = {symbol.name: symbol for symbol in symbols(kernels, "--defined-only")}
    kernels.unlink()
    available = _system() | {path.name: path for path in packages.rglob("*.so*")}
    loaded = _reachable([path for pattern in _LOADED for path in packages.glob(pattern)], available)
    missing = {name for path in loaded for name in needed(path) if name not in available}
    defined = {symbol.name for path in loaded for symbol in symbols(path, "--defined-only")}
    undefined = {
        (symbol.name, symbol.version)
        for path in loaded
        for symbol in symbols(path, "--undefined-only")
        if symbol.kind == _UNDEFINED
        and symbol.name not in defined
        and (not symbol.version or symbol.version in missing)
    }
    # Linked by the kernels only, so nothing uses them any more.
    for unused in set(kernels.parent.glob("*.so")) - loaded:
        unused.unlink()
    assemble([_stub(kernel_symbols.get(name), name, version) for name, version in sorted(undefined)], kernels)
    for name in missing - {KERNELS}:
        kernels.with_name(name).symlink_to(KERNELS)
    switch_off(packages / "torch" / "__init__.py")
    return missing


def switch_off(module: Path) -> None:
    """Make torch see itself as built without CUDA and without process groups, by the attributes it checks.

    Raises:
        ValueError: the module is that of an unknown torch version.
    """
    text = module.read_text(encoding="utf-8")
    if text.count(_LOADED_LINE) != 1:
        raise ValueError(
            f"{module} loads torch._C differently than expected: adapt {Path(__file__).name} to this torch"
        )
    module.unlink()  # may be linked into an installer's cache
    module.write_text(text.replace(_LOADED_LINE, _LOADED_LINE + _SWITCHES), encoding="utf-8")


def _stub(original: Symbol | None, name: str, version: str) -> Symbol:
    """Return the symbol to define: of the original kind and size, else a function, as in every C interface."""
    return Symbol(name, version, original.kind, original.size) if original else Symbol(name, version, "T", 0)


def _reachable(loaded: Iterable[Path], available: dict[str, Path]) -> set[Path]:
    """Return ``loaded`` and the libraries that they need, directly or not."""
    reached: set[Path] = set()
    waiting = list(loaded)
    while waiting:
        path = waiting.pop()
        if path not in reached:
            reached.add(path)
            waiting += [available[name] for name in needed(path) if name in available]
    return reached


def _system() -> dict[str, Path]:
    """Return the libraries on the loader's path, such as the C and C++ standard libraries, by name."""
    return {Path(path).name: Path(path) for path in _RESOLVED.findall(_run("/sbin/ldconfig", "-p"))}


def needed(library: Path) -> list[str]:
    """Return the file names of the libraries that a library is linked with."""
    return _NEEDED.findall(_run("readelf", "--dynamic", "--wide", str(library)))


def symbols(library: Path, which: str) -> list[Symbol]:
    """Return the dynamic symbols of a library; ``which`` is nm's --defined-only or --undefined-only."""
    lines = _run("nm", "--dynamic", "--portability", "--radix=d", "--with-symbol-versions", which, str(library))
    return [_symbol(line.split()) for line in lines.splitlines()]


def _symbol(fields: list[str]) -> Symbol:
    # name@version kind [value [size]]; @@ marks the version that is linked by default.
    name, _, version = fields[0].partition("@")
    return Symbol(name, version.lstrip("@"), fields[1], int(fields[3]) if len(fields) > 3 else 0)


def assemble(stubs: list[Symbol], target: Path) -> None:
    """Write a library that defines ``stubs``: functions end the process, data is zero."""
    with tempfile.TemporaryDirectory(prefix="visionserve-stubs-") as folder:
        source, compiled, versions = (Path(folder, name) for name in ("stubs.s", "stubs.o", "versions"))
        source.write_text(_assembly(stubs), encoding="ascii")
        versions.write_text(_versions(stubs), encoding="ascii")
        _run("as", "-o", str(compiled), str(source))
        link = ["ld", "-shared", f"-soname={target.name}", f"--version-script={versions}", "-z", "noexecstack"]
        _run(*link, "-o", str(target), str(compiled))


def _assembly(stubs: list[Symbol]) -> str:
    lines = [".text", _ABSENT]
    for index, symbol in enumerate(stubs):
        lines += [f'.globl "{symbol.name}"', f'.type "{symbol.name}", {"@function" if symbol.code else "@object"}']
        if symbol.name in _REGISTRIES:
            lines += [f'"{symbol.name}": lea callback{index}(%rip), %rax', "ret"]
            lines += [".data", ".balign 64", f"callback{index}: .zero 64", ".text"]
        elif symbol.code:
            # The message's address and length, for the system call.
            text = f"visionserve: {symbol.name} {_MESSAGE}"
            lines += [f'"{symbol.name}": lea text{index}(%rip), %rsi', f"mov ${len(text) + 1}, %edx", "jmp absent"]
            lines += [".section .rodata", f'text{index}: .ascii "{text}\\n"', ".text"]
        elif symbol.name.startswith(_TYPE):
            # Bindings are registered by type information, used or not: a class without a base in the C++ ABI's layout.
            lines += [".data", f'.balign 8; "{symbol.name}": .quad {_CLASS}, name{index}', ".section .rodata"]
            lines += [f'name{index}: .asciz "{symbol.name.removeprefix(_TYPE)}"', ".text"]
        else:
            lines += [".data", ".balign 64", f'.size "{symbol.name}", {symbol.size}']
            lines += [f'"{symbol.name}": .zero {max(symbol.size, _POINTER)}', ".text"]
    return "\n".join(lines) + "\n"


def _versions(stubs: list[Symbol]) -> str:
    """Return the linker's version script: the loader resolves a versioned symbol under its version only."""
    blocks = []
    for version in sorted({symbol.version for symbol in stubs if symbol.version}):
        names = "".join(f'"{symbol.name}";' for symbol in stubs if symbol.version == version)
        blocks.append(f"{version} {{ {names} }};\n")
    return "".join(blocks)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
