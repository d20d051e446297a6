"""Update the locked requirement sets from pyproject.toml (`make lock`).

The development set is resolved first and constrains the others, so that one environment can hold them all.
"""

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent / "requirements"
PROJECT = HERE.parent / "pyproject.toml"
SETS = {
    "dev": ("train", "ui", "dev"),
    "train": ("train",),
    "serve": ("serve",),
    "run": ("run",),
    "ui": ("ui",),
}
OPTIONS = ("--quiet", "--universal", "--python-version", "3.11", "--generate-hashes")
PLAIN = ("--no-emit-index-url", "--no-annotate", "--no-header")


def main() -> int:
    """Resolve every set; return a process exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--upgrade", action="store_true", help="use the newest versions that pyproject.toml allows")
    upgrade = ["--upgrade"] if parser.parse_args().upgrade else []
    for name, extras in SETS.items():
        selection = [f"--extra={extra}" for extra in extras]
        bound = [] if name == "dev" else ["--constraint", str(HERE / "dev.txt")]
        resolve(HERE / f"{name}.txt", [*selection, *bound, *upgrade, str(PROJECT)])
    # Locust's image is a program of its own, without the project's requirements.
    resolve(HERE / "loadtest.txt", ["--group=loadtest", "--constraint", str(HERE / "dev.txt"), *upgrade])
    resolve(HERE / "uv.txt", [*upgrade, str(HERE / "uv.in")])
    return 0


def resolve(target: Path, arguments: list[str]) -> None:
    """Write ``target``: exact versions and hashes of the requirements that ``arguments`` name."""
    uv = Path(sys.executable).with_name("uv")
    print(f"resolving {target.name} ...", flush=True)
    command = [str(uv), "pip", "compile", *OPTIONS, *PLAIN, *arguments, "--output-file", str(target)]
    subprocess.run(command, check=True, cwd=HERE.parent)


if __name__ == "__main__":
    sys.exit(main())
