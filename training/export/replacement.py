"""Replacement: a bundle's folder is exchanged as a whole, so that one of the two is complete whatever interrupts it."""

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from visionserve.errors import BundleError
from visionserve.files import ABANDONED_S
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import ModelCard

_log = logging.getLogger(__name__)


@contextmanager
def replacement(bundle: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes ``bundle`` once it was filled without an error.

    The old bundle is renamed aside, the new one renamed in, then the old one deleted: whatever interrupts this, one of
    them is whole. What an earlier, killed process left aside is brought back first.
    """
    bundle.parent.mkdir(parents=True, exist_ok=True)
    aside = bundle.with_name(f".{bundle.name}.replaced")
    if aside.exists() and not bundle.exists():
        _log.warning("an earlier command was killed while it replaced %s: the old bundle is back", bundle)
        aside.rename(bundle)
    prefix = f".{bundle.name}.unfinished-"
    _remove_abandoned(bundle.parent, prefix)
    with tempfile.TemporaryDirectory(dir=bundle.parent, prefix=f"{prefix}{os.getpid()}-") as parent:
        folder = Path(parent, "bundle")
        folder.mkdir()
        yield folder
        for file in folder.rglob("*"):  # safetensors writes files that only their owner may read
            file.chmod(0o755 if file.is_dir() else 0o644)
        shutil.rmtree(aside, ignore_errors=True)
        try:
            if bundle.exists():
                _announce(bundle, folder)
                bundle.rename(aside)
            folder.rename(bundle)
        except BaseException:
            if aside.exists() and not bundle.exists():
                aside.rename(bundle)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def _remove_abandoned(folder: Path, prefix: str) -> None:
    """Remove what a killed process has left unfinished: of a process that is gone, and an hour old."""
    for path in folder.glob(f"{prefix}*"):
        pid = path.name.removeprefix(prefix).partition("-")[0]
        if not Path("/proc", pid).exists() and time.time() - path.stat().st_mtime > ABANDONED_S:
            _log.warning("removing %s, which a command that was killed has left", path)
            shutil.rmtree(path, ignore_errors=True)


def _announce(old: Path, new: Path) -> None:
    """Log which bundle is replaced."""
    try:
        before, after = ModelCard.load(old / CARD), ModelCard.load(new / CARD)
    except BundleError:
        _log.warning("replacing %s, which is not a complete bundle", old)
        return
    dates = [str(card.provenance.get("date", "an unknown day")) for card in (before, after)]
    same = before.provenance.get("manifest_sha256") == after.provenance.get("manifest_sha256")
    _log.info(
        "replacing %s %s of %s at %s by %s %s of %s, %s manifest",
        before.name,
        before.version,
        dates[0],
        old,
        after.name,
        after.version,
        dates[1],
        "the same" if same else "another",
    )
