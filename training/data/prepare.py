"""From a recipe's `data` to a manifest: photographs indexed, checked, divided, or a manifest written once before."""

from dataclasses import replace
from pathlib import Path

from training.data import corrupt_files
from training.data import manifest as manifests
from training.data.corrupt_files import Broken
from training.data.datasets import SPLITS, Collection, collect
from training.data.manifest import Manifest
from training.recipe import Data
from visionserve.errors import BundleError


def make(data: Data, memory: Path | None = None) -> tuple[Manifest, tuple[Broken, ...]]:
    """Return the manifest and the files that were left out.

    Args:
        memory: folder that remembers which photographs decode; None tries all of them.

    Raises:
        BundleError: the folder cannot be used, photographs are broken and the recipe does not skip them, or the given
            manifest is not that of these photographs.
    """
    collection = collect(data.source, Path(data.root) if data.root is not None else None)
    if data.manifest is not None:
        return given(Path(data.manifest), collection), ()
    digests = manifests.digests(collection)
    found = corrupt_files.find(collection, digests, memory)
    if data.broken == "refuse":
        corrupt_files.refuse(collection, found)
    others = tuple(Broken(path, corrupt_files.NO_PHOTOGRAPH) for path in collection.others)
    return manifests.build(corrupt_files.without(collection, found), data.split, data.seed, digests), (*found, *others)


def given(path: Path, collection: Collection) -> Manifest:
    """Read a manifest and hold it against the disk; its labels keep the order that the source gives them."""
    read = manifests.load(path, collection.root, collection.labels)
    used = {row.label for row in read.rows}
    missing = set(SPLITS) - {row.split for row in read.rows}
    if missing:
        raise BundleError(f"{path} has no {' and no '.join(sorted(missing))} photographs")
    found = replace(read, labels=tuple(label for label in collection.labels if label in used))
    found.verify()
    return found
