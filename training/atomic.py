"""Files that are whole or not there: a run may be killed at any moment and must find what it wrote."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LEFT_OVER_S = 3600.0  # an unfinished file that nobody has written to for so long is of a process that was killed


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield an unfinished file's path beside ``path``, whose place it takes when the block ends without an error.

    The name ends like the finished one's and is this process's own, so two that write the same file do not meet.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _tidy(path)
    unfinished = path.with_name(f".unfinished-{os.getpid()}-{path.name}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole, with its line ends as they are."""
    with whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="")


def _tidy(path: Path) -> None:
    for unfinished in path.parent.glob(f".unfinished-*-{path.name}"):
        if time.time() - unfinished.stat().st_mtime > LEFT_OVER_S:
            unfinished.unlink(missing_ok=True)
