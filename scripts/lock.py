"""Update the locked requirement sets from pyproject.toml (`make lock`).

The development set is resolved first and constrains the others, so that one environment can hold them all.
"""

import argparse
import re
import subprocess
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent / "requirements"
PROJECT = HERE.parent / "pyproject.toml"
SETS = {
    "dev": ("train", "ui", "docs", "otel", "notebooks", "dev"),
    "train": ("train",),
    "serve": ("serve",),
    "run": ("run",),
    "ui": ("ui",),
    "docs": ("docs",),
    "notebooks": ("notebooks",),
}
# For every supported Python, from the oldest on; a package whose versions differ between them has several lines.
OPTIONS = ("--quiet", "--universal", "--generate-hashes")
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


def oldest_python() -> str:
    """Return the oldest version that pyproject.toml allows, such as 3.11."""
    allowed = tomllib.loads(PROJECT.read_text())["project"]["requires-python"]
    return str(re.match(r">=([0-9.]+)", allowed)[1])  # type: ignore[index]


def resolve(target: Path, arguments: list[str]) -> None:
    """Write ``target``: exact versions and hashes of the requirements that ``arguments`` name."""
    uv = Path(sys.executable).with_name("uv")
    print(f"resolving {target.name} ...", flush=True)
    version = ["--python-version", oldest_python()]
    command = [str(uv), "pip", "compile", *OPTIONS, *version, *PLAIN, *arguments, "--output-file", str(target)]
    subprocess.run(command, check=True, cwd=HERE.parent)


if __name__ == "__main__":
    sys.exit(main())
