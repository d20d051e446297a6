"""Addition: the images of a folder that a manifest does not name, or those of a reviewed list, join the manifest.

folder  -> images that the manifest does not name      \
    review list -> accepted images, checked                 > corrupt ones out -> growth.grow -> a new manifest
/      accepted images are copied below the data set's root
"""

import difflib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from training.data import corrupt_files, growth, prepare, review_list
from training.data import manifest as manifests
from training.data.corrupt_files import CorruptFile
from training.data.datasets import Collection, ImageFile, collect, imagefolder, labels_csv
from training.data.duplicates import Hash
from training.data.growth import Copies, Growth, Side
from training.data.manifest import Manifest, hash_file
from training.recipe import Data
from visionserve.errors import BundleError
from visionserve.files import atomic_write, is_image

REVIEWED = "reviewed"  # the group of images that came from a review list
_REMOVED = (
    "bring it back. If it was moved or removed on purpose, the manifest cannot grow: make another one with "
    "`python -m training data manifest`"
)


@dataclass(frozen=True)
class _Candidates:
    """Images that may join: their paths below the root, the files that hold them now, digests and hashes by path."""

    images: tuple[ImageFile, ...]
    files: Mapping[str, Path]
    digests: Mapping[str, str]
    hashes: Mapping[str, Hash]
    left_out: tuple[CorruptFile, ...]


def add_folder(data: Data, side: Side, copies: Copies, memory: Path | None = None) -> Growth:
    """Add the images below the root that ``data.manifest`` does not name.

    Args:
        memory: folder that remembers which images decode; None tries all of them.

    Raises:
        BundleError: an image of the manifest is missing or changed, a new one is corrupt and ``data.corrupt`` does not
            skip it, or a new label has too few images.
    """
    collection, old = _old(data)
    named = {row.path for row in old.rows}
    images = tuple(image for image in collection.images if image.path not in named)
    digests = {image.path: hash_file(collection.root / image.path) for image in images}
    scan = corrupt_files.scan(collection, digests, memory)
    if data.corrupt == "error":
        corrupt_files.refuse_any(collection, scan.corrupt)
    usable = tuple(image for image in images if image.path in scan.hashes)
    others = tuple(CorruptFile(path, corrupt_files.reason_of_name(path)) for path in collection.others)
    candidates = _Candidates(usable, {}, digests, scan.hashes, (*scan.corrupt, *others))
    return _grown(collection, old, candidates, side, copies, data, memory)


def add_reviewed(
    data: Data, path: Path, new_labels: Sequence[str], side: Side, copies: Copies, memory: Path | None = None
) -> Growth:
    """Copy the accepted images of a review list below the root, and add them.

    Args:
        new_labels: labels that the data set has not, and may get.

    Raises:
        BundleError: as for `add_folder`; or the list is wrong, or has an unknown label.
    """
    if data.source not in ("imagefolder", "labels-csv"):
        raise BundleError(f"images can be added to the sources imagefolder and labels-csv only, not to {data.source}")
    collection, old = _old(data)
    candidates = _reviewed(path, data, collection, {row.label for row in old.rows}, new_labels, memory)
    labels = tuple(sorted({*collection.labels, *(image.label for image in candidates.images)}))
    images = (*collection.images, *candidates.images)
    grown = _grown(Collection(collection.root, labels, images), old, candidates, side, copies, data, memory)
    for row in grown.added:
        target = collection.root / row.path
        with atomic_write(target) as unfinished:
            shutil.copyfile(candidates.files[row.path], unfinished)
    if data.source == "labels-csv" and grown.added:
        labels_csv.append(collection.root, data.csv, [(row.path, row.label) for row in grown.added], REVIEWED)
    listed = {target: file.relative_to(path.parent).as_posix() for target, file in candidates.files.items()}
    return replace(grown, left_out=tuple(replace(f, path=listed.get(f.path, f.path)) for f in grown.left_out))


def _old(data: Data) -> tuple[Collection, Manifest]:
    if data.manifest is None:
        raise BundleError("--data.manifest names the manifest that is to grow, such as RUN/manifest.csv")
    collection = collect(data.source, Path(data.root) if data.root is not None else None, csv=data.csv)
    old = manifests.load(Path(data.manifest), collection.root, collection.labels)
    old.verify(_REMOVED)
    return collection, old


def _grown(
    collection: Collection,
    old: Manifest,
    candidates: _Candidates,
    side: Side,
    copies: Copies,
    data: Data,
    memory: Path | None,
) -> Growth:
    alike: list[tuple[str, str]] = []
    if copies == "near" and candidates.images:
        digests = {row.path: row.sha256 for row in old.rows}
        hashes = corrupt_files.scan(collection, digests, memory).hashes
        alike = prepare.alike({**hashes, **candidates.hashes})
    grown = growth.grow(old, collection, candidates.images, candidates.digests, alike, side, data.seed, data.shares)
    return replace(grown, left_out=(*grown.left_out, *candidates.left_out))


def _reviewed(
    path: Path, data: Data, collection: Collection, known: set[str], new_labels: Sequence[str], memory: Path | None
) -> _Candidates:
    """Read the list; what is not accepted, missing, changed or corrupt is left out."""
    accepted: dict[str, review_list.Entry] = {}
    left_out = []
    for entry in review_list.read(path):
        reason = _refused(entry, path.parent / entry.file)
        if reason:
            left_out.append(CorruptFile(entry.file, reason))
        else:
            _check_label(entry, {*known, *new_labels})
            accepted[entry.file] = entry
    files = tuple(ImageFile(entry.file, entry.label) for entry in accepted.values())
    digests = {file: hash_file(path.parent / file) for file in accepted}
    listed = Collection(path.parent, tuple(sorted({image.label for image in files})), files)
    scan = corrupt_files.scan(listed, digests, memory)
    targets = {
        file: f"{_folder(data, collection, entry.label)}{digests[file]}{Path(file).suffix.lower()}"
        for file, entry in accepted.items()
        if file in scan.hashes
    }
    return _Candidates(
        tuple(ImageFile(target, accepted[file].label) for file, target in targets.items()),
        {target: path.parent / file for file, target in targets.items()},
        {target: digests[file] for file, target in targets.items()},
        {target: np.asarray(scan.hashes[file]) for file, target in targets.items()},
        (*left_out, *scan.corrupt),
    )


def _folder(data: Data, collection: Collection, label: str) -> str:
    """Return where a new image of a label goes below the root, with a slash."""
    if data.source == "labels-csv":
        return f"{data.csv.folder}/".removeprefix("/").removeprefix("./")
    return f"{imagefolder.folder_of(collection, label)}/"


def _refused(entry: review_list.Entry, file: Path) -> str:
    """Return why an image of the list is not used; empty when it is."""
    if not entry.accepted:
        return "not reviewed: use is empty" if entry.accepted is None else "use is no"
    if not file.is_file():
        return "missing"
    if not is_image(file):
        return corrupt_files.reason_of_name(file.name)
    if entry.sha256 and hash_file(file) != entry.sha256:
        return "changed since it was listed"
    return ""


def _check_label(entry: review_list.Entry, known: set[str]) -> None:
    if entry.label in known:
        return
    near = difflib.get_close_matches(entry.label, known, 1)
    hint = f" (is it {near[0]!r}?)" if near else ""
    raise BundleError(
        f"{entry.file}: the data set has no label {entry.label!r}{hint}; if it is meant, --new-label {entry.label!r}"
    )
