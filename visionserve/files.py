"""Files: which names image files have, reads that cannot block, writes that are complete or do not happen.

Standard library only.
"""

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

# The usual names of the formats that images.py decodes. One list, for whoever walks a folder.
IMAGE_SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".webp",
    ".heic",
    ".heif",
    ".avif",
    ".gif",
    ".bmp",
    ".tif",
    ".tiff",
)
LARGEST_IMAGE = 64 << 20  # bytes; more than services and networks take, and little enough to hold several
ABANDONED_S = 3600.0  # an unfinished file that nobody has written to for so long is of a process that was killed


def is_image(path: Path | str) -> bool:
    """Whether a file's name ends like an image's, in upper or lower case; the file itself is not read."""
    return str(path).lower().endswith(IMAGE_SUFFIXES)


def images_below(folder: Path) -> list[Path]:
    """Return the image files below a folder, sorted, without hidden ones and those of linked folders.

    By their names: a pipe or a link that leads nowhere is among them, for whoever reads the files to report.
    """
    found: list[Path] = []
    for directory, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(directory, name) for name in names if is_image(name) and not name.startswith("."))
        found += (path for path in paths if not path.is_dir())
    return sorted(found)


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path is a folder or anywhere below it: what is written there would be read the next time."""
    return path.resolve().is_relative_to(folder.resolve())


def open_regular(path: os.PathLike[str] | str) -> BufferedReader:
    """Open a file to read; OSError for anything but a regular file: a pipe without a writer would block for ever."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    raise OSError(errno.EINVAL, "Not a regular file", os.fspath(path))


def read_regular(path: os.PathLike[str] | str) -> bytes:
    """Return a file's bytes; OSError as of `open_regular`, and for one that is too large to be an image."""
    with open_regular(path) as stream:
        if os.fstat(stream.fileno()).st_size > LARGEST_IMAGE:
            raise OSError(errno.EFBIG, f"Larger than {LARGEST_IMAGE >> 20} MiB", os.fspath(path))
        return stream.read()


@contextmanager
def atomic_write(path: Path, mode: int | None = None) -> Iterator[Path]:
    """Yield the path of an unfinished file, which replaces ``path`` when the block ends without an error.

    A process may be killed at any moment: it leaves the old file or the new one, never a part. The unfinished file's
    name ends like the finished one's and holds the process's id, so two processes that write the same file do not meet.

    Args:
        path: Its folder is made where it does not exist.
        mode: The permissions of the file from its first byte on, whatever the umask; None leaves them to the umask.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    unfinished = path.with_name(f".unfinished-{os.getpid()}-{path.name}")
    unfinished.unlink(missing_ok=True)
    if mode is not None:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        os.fchmod(descriptor, mode)
        os.close(descriptor)
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_text(path: Path, text: str, mode: int | None = None) -> None:
    """Write UTF-8 text in one step, with its line ends as they are."""
    with atomic_write(path, mode) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="")


def _remove_abandoned(path: Path) -> None:
    for unfinished in path.parent.glob(f".unfinished-*-{path.name}"):
        if time.time() - unfinished.stat().st_mtime > ABANDONED_S:
            unfinished.unlink(missing_ok=True)
