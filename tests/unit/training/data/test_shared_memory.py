"""A /dev/shm too small for the batches is one sentence, before the training or in it; on a real, small tmpfs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from training.data import shared_memory
from visionserve.errors import BundleError

ROOT = Path(__file__).resolve().parents[4]
TWO_WORKERS_HAND_OVER_BATCHES = """
import torch
from torch.utils.data import DataLoader
from training.data import shared_memory
from visionserve.errors import BundleError

loader = DataLoader([torch.zeros(65536)] * 8, batch_size=4, num_workers=2, multiprocessing_context="fork")
try:
    with shared_memory.explained():
        list(loader)
except BundleError as error:
    print(error)
try:
    shared_memory.require(workers=2, batch_bytes=1_000_000, batches=100)
except BundleError as error:
    print(error)
"""


def may_mount() -> bool:
    """Whether a process gets mounts of its own here; root in a chroot does not."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(
    not may_mount(), reason="mounts a small /dev/shm of its own: run the tests as root, where unshare(1) is allowed"
)
@pytest.mark.parametrize("size", ["8k", "512k"], ids=["no room for semaphores", "no room for batches"])
def test_a_full_shared_memory_is_a_sentence_and_not_a_trace(size: str) -> None:
    mount = f"mount --make-rprivate / && mount -t tmpfs -o size={size} tmpfs /dev/shm && "
    command = [sys.executable, "-c", TWO_WORKERS_HAND_OVER_BATCHES]
    result = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount + 'exec "$@"', "sh", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    full, too_small = result.stdout.splitlines()
    assert full.startswith(
        "/dev/shm is full, through which processes that augment hand over batches: train with --data"
    )
    assert too_small.startswith("/dev/shm has 0.")
    assert "the batches of 2 processes that augment take 8.0 MB: train with --data.workers 0 and" in too_small


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes differ"), shared_memory.explained():
        raise RuntimeError("shapes differ")


def test_an_error_of_the_clean_up_does_not_hide_it() -> None:
    with pytest.raises(BundleError, match=r"--data\.workers 0"), shared_memory.explained():
        try:
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. ...")
        finally:
            raise RuntimeError("Please call `iter(combined_loader)` first.")


def test_what_fits_and_no_processes_at_all_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "FOLDER", Path(__file__).parent)
    shared_memory.require(workers=2, batch_bytes=1000, batches=100)
    shared_memory.require(workers=0, batch_bytes=2**60, batches=100)
    monkeypatch.setattr(shared_memory, "FOLDER", Path("/no/such/folder"))
    shared_memory.require(workers=2, batch_bytes=2**60, batches=100)
