"""Growth: new images join a manifest, whose own rows stay as they are, so that versions of a model stay comparable.

What is there already, exactly or nearly, is left out and listed: a copy of a validation or test image would make its
measurement worthless, one of a training image adds nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from training.data import splits
from training.data.corrupt_files import CorruptFile
from training.data.datasets import SPLITS, Collection, ImageFile, Split
from training.data.manifest import Manifest, Row
from training.markdown import counted
from training.recipe import Shares
from visionserve.errors import BundleError

Side = Literal["divide", "train", "given"]
Copies = Literal["near", "identical"]
SIDES: tuple[Side, ...] = get_args(Side)
COPIES: tuple[Copies, ...] = get_args(Copies)
_NAMES = {"train": "a training image", "val": "a validation image", "test": "a test image"}


@dataclass(frozen=True)
class Growth:
    """The grown manifest, its new rows, and the images that did not join it, with the reasons."""

    manifest: Manifest
    added: tuple[Row, ...]
    left_out: tuple[CorruptFile, ...]


def grow(
    old: Manifest,
    collection: Collection,
    images: Sequence[ImageFile],
    digests: Mapping[str, str],
    alike: Sequence[tuple[str, str]],
    side: Side = "divide",
    seed: int = 1,
    shares: Shares = splits.DEFAULT,
) -> Growth:
    """Add images of a collection to a manifest.

    Args:
        images: the new ones; all of them decode.
        digests: path -> SHA-256 of them.
        alike: pairs of paths, old or new, that look the same; the nearest pair first.
        side: ``divide`` splits them by seed and file as `splits.additional` says; ``train`` takes them for training;
            ``given`` takes the split that the source gives them.

    Raises:
        BundleError: a new label has too few images, or none for validation and test.
    """
    copies = _copies(old, images, digests, alike)
    joining = [image for image in images if image.path not in copies]
    known = {row.label for row in old.rows}
    new_labels = sorted({image.label for image in joining} - known)
    among_new = {image.path for image in joining}
    pairs = [pair for pair in alike if among_new.issuperset(pair)]
    assigned = _assigned(joining, digests, pairs, known, side, seed, shares)
    if side == "divide":
        assigned |= _by_group(old, joining, seed, shares)
    rows = tuple(Row(i.path, i.label, assigned[i.path], digests[i.path], i.accept, i.group) for i in joining)
    labels = tuple(label for label in collection.labels if label in known or label in new_labels)
    grown = replace(old, labels=labels, rows=tuple(sorted((*old.rows, *rows), key=lambda row: row.path)))
    return Growth(grown, rows, tuple(CorruptFile(path, reason) for path, reason in copies.items()))


def summary(growth: Growth) -> list[str]:
    """Return lines on how the splits grew, on every label with new images, and on every image left out, with why."""
    counts = {split: sum(row.split == split for row in growth.added) for split in SPLITS}
    sizes = ", ".join(f"{s} {len(growth.manifest.part(s)) - counts[s]} + {counts[s]}" for s in SPLITS)
    lines = [f"{counted(len(growth.added), 'image')} added: {sizes}"]
    for label in growth.manifest.labels:
        sides = Counter(row.split for row in growth.added if row.label == label)
        if sides:
            lines.append(f"  {label}: " + ", ".join(f"{split} + {sides[split]}" for split in SPLITS if sides[split]))
    lines += [f"left out {counted(len(growth.left_out), 'file')}:"] if growth.left_out else []
    return lines + [f"  {file.path}: {file.reason}" for file in growth.left_out]


def _assigned(
    images: Sequence[ImageFile],
    digests: Mapping[str, str],
    alike: Sequence[tuple[str, str]],
    known: set[str],
    side: Side,
    seed: int,
    shares: Shares,
) -> dict[str, Split]:
    if side == "divide":
        return splits.additional(images, digests, seed, alike, known, shares)
    new = sorted({image.label for image in images} - known)
    if side == "train":
        if new:
            raise BundleError(
                f"{new[0]!r} is not a label of the manifest yet and needs validation and test images too: "
                "divide its images, with --side divide"
            )
        return dict.fromkeys((image.path for image in images), "train")
    given = {image.path: image.split for image in images if image.split is not None}
    if len(given) < len(images):
        raise BundleError("this source has no split of its own: --side divide or train")
    lacking = [label for label in new if "train" not in {given[i.path] for i in images if i.label == label}]
    if lacking:
        raise BundleError(f"the new label {lacking[0]!r} has no images to train on: add some or remove the label")
    return given


def _by_group(old: Manifest, images: Sequence[ImageFile], seed: int, shares: Shares) -> dict[str, Split]:
    """Return path -> split of images with a group, where the manifest has each of its groups on one side.

    A group that is known stays on its side; a new one goes by the number of its name, as `splits.by_group` does it.
    """
    sides: dict[str, set[Split]] = defaultdict(set)
    for row in old.rows:
        sides[row.group].add(row.split)
    if not all(row.group for row in old.rows) or any(len(splits) > 1 for splits in sides.values()):
        return {}
    return {
        image.path: next(iter(sides[image.group]))
        if image.group in sides
        else splits.side_of(seed, image.group, shares)
        for image in images
        if image.group
    }


def _copies(
    old: Manifest, images: Sequence[ImageFile], digests: Mapping[str, str], alike: Sequence[tuple[str, str]]
) -> dict[str, str]:
    """Return path -> reason of the new images that are copies of others."""
    copies = _same_files(old, images, digests)
    rows = {row.path: row for row in old.rows}
    labels = {image.path: image.label for image in images}
    similar: dict[str, list[Row]] = defaultdict(list)
    for one, other in alike:
        for new, known in ((one, other), (other, one)):
            if new in labels and known in rows:
                similar[new].append(rows[known])
    for path, others in similar.items():
        worst = max(others, key=lambda row: SPLITS.index(row.split))  # of several the one that matters most
        copies.setdefault(path, f"looks like {_described(worst, labels[path])}")
    return copies


def _same_files(old: Manifest, images: Sequence[ImageFile], digests: Mapping[str, str]) -> dict[str, str]:
    known = {row.sha256: row for row in old.rows}
    by_digest: dict[str, list[ImageFile]] = defaultdict(list)
    for image in images:
        by_digest[digests[image.path]].append(image)
    copies: dict[str, str] = {}
    for digest, same in by_digest.items():
        if digest in known:
            copies |= {i.path: f"the same file as {_described(known[digest], i.label)}" for i in same}
        elif len({image.label for image in same}) > 1:
            copies |= {i.path: "the same file under several labels: keep it under the right one" for i in same}
        else:
            copies |= {image.path: f"the same file as {same[0].path}" for image in same[1:]}
    return copies


def _described(row: Row, label: str) -> str:
    other = f", whose label is {row.label}: one of the two labels may be wrong" if row.label != label else ""
    return f"{_NAMES[row.split]}, {row.path}{other}"
