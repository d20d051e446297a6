"""Shared memory, through which the processes that augment hand over their batches: whether it holds them.

In a container it is 64 MB unless somebody asked for more, and PyTorch ends with a trace or dies of a bus error.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from visionserve.errors import BundleError

FOLDER = Path("/dev/shm")  # noqa: S108  # where Linux keeps it
PREFETCHED = 4  # batches that each process makes ahead
_SIGNS = ("shared memory", "bus error", "</torch_")  # in the messages of PyTorch and of its dead workers
_ALMOST_FULL = 65536  # bytes: less holds no batch, and the semaphores of a few processes fill it
_REMEDY = (
    "train with --data.workers 0 and --data.gpu_workers 0, or give the container more "
    "(Docker: --shm-size 1g; Kubernetes: an emptyDir with `medium: Memory` at /dev/shm)"
)


def require(workers: int, batch_bytes: int, batches: int) -> None:
    """Check that the batches that lie there at the same time have room.

    Raises:
        BundleError: they have not; the message says what to do.
    """
    needed = min(batches, workers * PREFETCHED) * batch_bytes
    free = _free()
    if workers and free is not None and free < needed:
        raise BundleError(
            f"{FOLDER} has {_megabytes(free)} left, and the batches of {workers} processes that augment take "
            f"{_megabytes(needed)}: {_REMEDY}"
        )


@contextmanager
def explained() -> Iterator[None]:
    """Within the block, a failure for want of shared memory is a BundleError of one sentence."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        if not _is_about_it(error):
            raise
        raise BundleError(
            f"{FOLDER} is full, through which processes that augment hand over batches: {_REMEDY}"
        ) from error


def _free() -> int | None:
    """Return the bytes left; None on a system without such a folder."""
    try:
        state = os.statvfs(FOLDER)
    except (OSError, AttributeError):
        return None
    return state.f_bavail * state.f_frsize


def _is_about_it(error: BaseException | None) -> bool:
    """Whether an error, or one during whose handling it was raised, is PyTorch's of its shared memory."""
    while error is not None:
        if any(sign in str(error).lower() for sign in _SIGNS):
            return True
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and (_free() or 0) < _ALMOST_FULL:
            return True
        error = error.__cause__ or error.__context__
    return False


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
