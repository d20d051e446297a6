"""Hollow: one small library that stands in for those a CUDA build of torch links but a CPU never calls.

    torch's libraries that stay --nm--> names wanted, names given --> what nobody gives --as, ld--> one hollow library

The loader wants every library and every name before it starts a program, used or not: 2.9 GB of CUDA's libraries for
a service without a GPU. The hollow library offers exactly the missing names, under the file names of the libraries
that are not there. Calling one of them ends the process with a sentence; there is no way to a wrong answer.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# Linked by torch as it comes, and removed: its kernels for GPUs.
KERNELS = "libtorch_cuda.so"
# What Python loads itself, or torch for it; all else is linked to these.
_LOADED = ("torch/_C.*.so", "torch/lib/libtorch_global_deps.so", "torchvision/*.so")
_NEEDED = re.compile(r"\(NEEDED\).*\[(.+)\]")
_FOUND = re.compile(r"=> (/.+)")
# Of nm: code and data that must be there; the small letters w and v may be missing.
_FUNCTIONS, _WANTED = "TtWi", "U"
_SENTENCE = "was called, which needs a GPU, and this image is for CPUs: use the one built with DEVICE=gpu"
# write(2, text), then an instruction that no processor knows: the process ends with SIGILL, and the log says why.
_ABSENT = "absent: mov $1, %eax; mov $2, %edi; syscall; ud2"
# Called while the libraries are being loaded, to register a callback: they return a place that it is written to.
_REGISTRIES = ("_ZN4c10d15get_gil_checkerEv",)
_TYPE, _CLASS = "_ZTI", "_ZTVN10__cxxabiv117__class_type_infoE + 16"
_POINTER = 8
# The place in torch/__init__.py where its libraries have just been loaded, and what is put behind it.
_LOADED_LINE = "        _load_global_deps()\n    from torch._C import *  # noqa: F403\n"
_SWITCHES = """\
    _built = sys.modules["torch._C"]
    _built._has_cuda = False
    del _built._c10d_init, _built._rpc_init, _built._cuda_getDeviceCount, _built
"""


@dataclass(frozen=True)
class Symbol:
    """A name in a library: its version ("" for none), nm's letter for its kind, its size in bytes."""

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
    parser = argparse.ArgumentParser(description="Replace CUDA's libraries, which a CPU never calls, by a hollow one.")
    parser.add_argument("packages", type=Path, help="the site-packages folder that holds torch")
    packages: Path = parser.parse_args(arguments).packages
    kernels = packages / "torch" / "lib" / KERNELS
    if not kernels.exists():
        print(f"{packages} holds a torch without CUDA: nothing to replace.")
        return 0
    names = replace(packages, kernels)
    print(f"{KERNELS} and {len(names) - 1} libraries of CUDA are hollow: {', '.join(sorted(names))}")
    return 0


def replace(packages: Path, kernels: Path) -> set[str]:
    """Put the hollow library in the place of ``kernels`` and of every library that is missing; return their names."""
    offered = {symbol.name: symbol for symbol in symbols(kernels, "--defined-only")}
    kernels.unlink()
    there = _system() | {path.name: path for path in packages.rglob("*.so*")}
    loaded = _reachable([path for pattern in _LOADED for path in packages.glob(pattern)], there)
    missing = {name for path in loaded for name in needed(path) if name not in there}
    given = {symbol.name for path in loaded for symbol in symbols(path, "--defined-only")}
    wanted = {
        (symbol.name, symbol.version)
        for path in loaded
        for symbol in symbols(path, "--undefined-only")
        if symbol.kind == _WANTED and symbol.name not in given and (not symbol.version or symbol.version in missing)
    }
    # Linked by the kernels only, so nothing reaches them any more.
    for stranded in set(kernels.parent.glob("*.so")) - loaded:
        stranded.unlink()
    assemble([_like(offered.get(name), name, version) for name, version in sorted(wanted)], kernels)
    for name in missing - {KERNELS}:
        kernels.with_name(name).symlink_to(KERNELS)
    switch_off(packages / "torch" / "__init__.py")
    return missing


def switch_off(module: Path) -> None:
    """Make torch see itself as built without CUDA and without process groups, by the marks it looks for.

    Raises:
        ValueError: the module is not that of a torch we know.
    """
    text = module.read_text(encoding="utf-8")
    if text.count(_LOADED_LINE) != 1:
        raise ValueError(f"{module} does not load torch._C where it used to: adapt {Path(__file__).name} to this torch")
    module.unlink()  # may be linked into an installer's cache
    module.write_text(text.replace(_LOADED_LINE, _LOADED_LINE + _SWITCHES), encoding="utf-8")


def _like(known: Symbol | None, name: str, version: str) -> Symbol:
    """Return the symbol to offer: of the kind and size it had, or a function, for C interfaces hold nothing else."""
    return Symbol(name, version, known.kind, known.size) if known else Symbol(name, version, "T", 0)


def _reachable(loaded: Iterable[Path], there: dict[str, Path]) -> set[Path]:
    """Return ``loaded`` and the libraries that they need, directly or not."""
    found: set[Path] = set()
    waiting = list(loaded)
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += [there[name] for name in needed(path) if name in there]
    return found


def _system() -> dict[str, Path]:
    """Return the libraries that the loader finds by itself: C's and C++'s."""
    return {Path(found).name: Path(found) for found in _FOUND.findall(_run("/sbin/ldconfig", "-p"))}


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


def assemble(hollow: list[Symbol], target: Path) -> None:
    """Write a library that offers ``hollow``: functions end the process, data is zero."""
    with tempfile.TemporaryDirectory(prefix="visionserve-hollow-") as folder:
        source, compiled, versions = (Path(folder, name) for name in ("hollow.s", "hollow.o", "versions"))
        source.write_text(_assembly(hollow), encoding="ascii")
        versions.write_text(_versions(hollow), encoding="ascii")
        _run("as", "-o", str(compiled), str(source))
        link = ["ld", "-shared", f"-soname={target.name}", f"--version-script={versions}", "-z", "noexecstack"]
        _run(*link, "-o", str(target), str(compiled))


def _assembly(hollow: list[Symbol]) -> str:
    lines = [".text", _ABSENT]
    for place, symbol in enumerate(hollow):
        lines += [f'.globl "{symbol.name}"', f'.type "{symbol.name}", {"@function" if symbol.code else "@object"}']
        if symbol.name in _REGISTRIES:
            lines += [f'"{symbol.name}": lea place{place}(%rip), %rax', "ret"]
            lines += [".data", ".balign 64", f"place{place}: .zero 64", ".text"]
        elif symbol.code:
            # What was called: the sentence's address and length, for the system call.
            text = f"visionserve: {symbol.name} {_SENTENCE}"
            lines += [f'"{symbol.name}": lea text{place}(%rip), %rsi', f"mov ${len(text) + 1}, %edx", "jmp absent"]
            lines += [".section .rodata", f'text{place}: .ascii "{text}\\n"', ".text"]
        elif symbol.name.startswith(_TYPE):
            # Bindings are registered by a type's name, used or not: a class without a base, as the C++ ABI lays it out.
            lines += [".data", f'.balign 8; "{symbol.name}": .quad {_CLASS}, name{place}', ".section .rodata"]
            lines += [f'name{place}: .asciz "{symbol.name.removeprefix(_TYPE)}"', ".text"]
        else:
            lines += [".data", ".balign 64", f'.size "{symbol.name}", {symbol.size}']
            lines += [f'"{symbol.name}": .zero {max(symbol.size, _POINTER)}', ".text"]
    return "\n".join(lines) + "\n"


def _versions(hollow: list[Symbol]) -> str:
    """Return the linker's version script: the loader looks up a versioned name under its version only."""
    blocks = []
    for version in sorted({symbol.version for symbol in hollow if symbol.version}):
        names = "".join(f'"{symbol.name}";' for symbol in hollow if symbol.version == version)
        blocks.append(f"{version} {{ {names} }};\n")
    return "".join(blocks)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
