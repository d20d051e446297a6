"""A sentence for a program whose requirement set is not installed. Standard library only."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Packages of this repository: one of these that is missing is a fault of the program and keeps its trace.
_OWN = (
    "gateway",
    "handlers",
    "launcher",
    "loadtests",
    "monitoring",
    "scripts",
    "tests",
    "training",
    "ui",
    "visionserve",
)


@contextmanager
def explained(program: str, requirement_set: str) -> Iterator[None]:
    """Around a program's imports: a third-party package that is missing ends it with a sentence and exit code 2."""
    try:
        yield
    except ModuleNotFoundError as error:
        print(f"{program}: {sentence(error, requirement_set)}", file=sys.stderr)  # noqa: T201
        sys.exit(2)


def sentence(error: ModuleNotFoundError, requirement_set: str) -> str:
    """Return what is missing and what installs it; raises the error again if it is not a third-party package.

    Args:
        requirement_set: the name of a file in requirements/ and of an extra: serve, train, dev, ui.
    """
    package = (error.name or "").partition(".")[0]
    if not package or package in _OWN:
        raise error
    return (
        f"the package {package} is not installed: `make .venv/.{requirement_set}` installs what this needs, "
        f"or pip install --editable '.[{requirement_set}]'."
    )
