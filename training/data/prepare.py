"""From a recipe's `data` to a manifest: index, check and split the images, or read a manifest written before."""

from dataclasses import replace
from pathlib import Path

from training.data import corrupt_files
from training.data import manifest as manifests
from training.data.corrupt_files import CorruptFile
from training.data.datasets import SPLITS, Collection, collect
from training.data.manifest import Manifest, Row, hash_file
from training.recipe import Data, Recipe
from visionserve.errors import BundleError


def make(data: Data, memory: Path | None = None) -> tuple[Manifest, tuple[CorruptFile, ...]]:
    """Return the manifest and the files that were left out.

    Args:
        memory: folder that remembers which images decode; None tries all of them.

    Raises:
        BundleError: the folder cannot be used, images are corrupt and the recipe does not skip them, or the given
            manifest is not that of these images.
    """
    collection = collect(data.source, Path(data.root) if data.root is not None else None)
    if data.manifest is not None:
        return given(Path(data.manifest), collection), ()
    digests = manifests.digests(collection)
    corrupt = corrupt_files.find(collection, digests, memory)
    if data.corrupt == "error":
        corrupt_files.refuse_any(collection, corrupt)
    others = tuple(CorruptFile(path, corrupt_files.NOT_AN_IMAGE) for path in collection.others)
    return manifests.build(corrupt_files.without(collection, corrupt), data.split, data.seed, digests), (
        *corrupt,
        *others,
    )


def given(path: Path, collection: Collection) -> Manifest:
    """Read a manifest and compare it with the disk; its labels keep the order that the source gives them."""
    read = manifests.load(path, collection.root, collection.labels)
    used = {row.label for row in read.rows}
    missing = set(SPLITS) - {row.split for row in read.rows}
    if missing:
        raise BundleError(f"{path} has no {' and no '.join(sorted(missing))} images")
    manifest = replace(read, labels=tuple(label for label in collection.labels if label in used))
    manifest.verify()
    return manifest


def handful(recipe: Recipe) -> Manifest:
    """Return a batch to learn from and as many to validate on, from all over the source, with all of its labels.

    Splits are not those of a run: nothing of a rehearsal is kept.
    """
    collection = collect(recipe.data.source, Path(recipe.data.root) if recipe.data.root is not None else None)
    images = collection.images
    if len(images) < 2:
        raise BundleError(f"{collection.root} has too few images to learn from some and validate on others")
    count = min(2 * recipe.batch_size, len(images))
    sample = [images[index * len(images) // count] for index in range(count)]
    rows = (
        Row(p.path, p.label, "val" if index % 2 else "train", hash_file(collection.root / p.path))
        for index, p in enumerate(sample)
    )
    return Manifest(collection.root, collection.labels, tuple(rows))
