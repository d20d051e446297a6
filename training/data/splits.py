"""Splits: by a hash of seed and file, or the source's own; images that look the same are on one side.

A stratified split looks at each image by itself: what is added to a folder moves nothing that is there from training
to validation or test, so versions of a data set can be compared.
"""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from training.data.datasets import SPLITS, ImageFile, Split
from training.markdown import counted
from training.recipe import Shares
from visionserve.errors import BundleError

DEFAULT = Shares()
ORDER = {split: place for place, split in enumerate(SPLITS)}
Alike = Iterable[tuple[str, str]]  # pairs of paths of images that look the same


def divide(
    how: str,
    images: Sequence[ImageFile],
    digests: Mapping[str, str],
    seed: int,
    alike: Alike = (),
    shares: Shares = DEFAULT,
) -> dict[str, Split]:
    """Return path -> split by the way named ``stratified``, ``given``, ``given-test`` or ``by-group``."""
    if how == "by-group":
        return by_group(images, digests, seed, alike, shares)
    if how == "stratified":
        return stratified(images, digests, seed, alike, shares)
    return given(images, digests) if how == "given" else given_test(images, digests, seed, alike, shares)


def stratified(
    images: Sequence[ImageFile],
    digests: Mapping[str, str],
    seed: int,
    alike: Alike = (),
    shares: Shares = DEFAULT,
) -> dict[str, Split]:
    """Return path -> split: about the given shares within each label, at least one image of each.

    A file's hash with the seed, a number of 0-1, decides: with the usual shares below 0.1 test, below 0.2 validation. A
    group of images that look the same has the largest number of its members, so it rather goes to training, where
    copies do no harm; one whose images have several labels always does. The side of an image depends on its own group
    only, except in a label that is so small that none of its images fell below a bound: then the one with the lowest
    number is taken.

    Raises:
        BundleError: a label has fewer than three distinct images.
    """
    splits: dict[str, Split] = {}
    for label, groups in _groups_of_labels(images, digests, seed, alike, least=3).items():
        count = len(groups)
        if count < 3:
            raise BundleError(f"label {label!r} has {count} distinct images; a split needs three or more")
        sides = [shares.side(number) for number, _ in groups]
        test = max(1, sides.count("test"))
        held_out = min(max(test + 1, count - sides.count("train")), count - 1)
        test = min(test, held_out - 1)
        for index, (_, paths) in enumerate(groups):
            side: Split = "test" if index < test else "val" if index < held_out else "train"
            splits.update(dict.fromkeys(paths, side))
    return {image.path: splits.get(image.path, "train") for image in images}


def additional(
    images: Sequence[ImageFile],
    digests: Mapping[str, str],
    seed: int,
    alike: Alike,
    known: Collection[str],
    shares: Shares = DEFAULT,
) -> dict[str, Split]:
    """Return path -> split of images that join a data set whose images keep their splits.

    Those of its ``known`` labels, which have validation and test images, are divided by their numbers alone, as
    `stratified` does it: a label's new images may all go to training. Other labels are divided by `stratified`.

    Raises:
        BundleError: a new label has fewer than three distinct images.
    """
    fresh = [image for image in images if image.label not in known]
    splits = stratified(fresh, digests, seed, alike, shares)
    joining = [image for image in images if image.label in known]
    splits |= {image.path: "train" for image in joining}
    for groups in _groups_of_labels(joining, digests, seed, alike, least=1).values():
        for number, paths in groups:
            splits.update(dict.fromkeys(paths, shares.side(number)))
    return splits


def by_group(
    images: Sequence[ImageFile],
    digests: Mapping[str, str],
    seed: int,
    alike: Alike = (),
    shares: Shares = DEFAULT,
) -> dict[str, Split]:
    """Return path -> split: all images of a group, such as those of one website, are on one side.

    The group's hash with the seed, a number of 0-1, decides, as a file's does in `stratified`.
    What is added later, to a group or as a group, moves no other. Of identical files, and of images that look the
    same, in several splits, only those in the last of train, val, test are kept.

    Raises:
        BundleError: an image has no group, or a split has no images.
    """
    without = [image.path for image in images if not image.group]
    if without:
        raise BundleError(
            f"{without[0]} and {len(without) - 1} other images have no group to be divided by: name the column that "
            "says where an image comes from with csv.group, or use --data.split stratified"
        )
    splits: dict[str, Split] = {image.path: side_of(seed, image.group, shares) for image in images}
    missing = set(SPLITS) - set(splits.values())
    if missing:
        groups = len({image.group for image in images})
        raise BundleError(
            f"{groups} groups leave no {' and no '.join(sorted(missing))} images: more groups, another seed, or "
            "--data.split stratified"
        )
    copies = _copies(splits, digests, alike)
    return {path: split for path, split in splits.items() if path not in copies}


def _copies(splits: Mapping[str, Split], digests: Mapping[str, str], alike: Alike) -> set[str]:
    """Return the paths of images of which a copy is in a later one of train, val, test."""
    last: dict[str, int] = defaultdict(int)
    for path, split in splits.items():
        last[digests[path]] = max(last[digests[path]], ORDER[split])
    copies = {path for path, split in splits.items() if ORDER[split] < last[digests[path]]}
    for one, other in alike:
        if one in splits and other in splits and splits[one] != splits[other]:
            copies.add(min(one, other, key=lambda path: ORDER[splits[path]]))
    return copies


def given(images: Sequence[ImageFile], digests: Mapping[str, str]) -> dict[str, Split]:
    """Return path -> split as the source divides them.

    Of identical files in several splits only those in the last of train, val, test are kept: no image that is trained
    on is ever measured on.
    """
    splits: dict[str, Split] = {p.path: p.split for p in images if p.split is not None}
    if len(splits) != len(images):
        raise BundleError(_no_split_of_its_own(images))
    last: dict[str, int] = defaultdict(int)
    for path, split in splits.items():
        last[digests[path]] = max(last[digests[path]], SPLITS.index(split))
    remaining = {path: split for path, split in splits.items() if SPLITS.index(split) == last[digests[path]]}
    missing = set(SPLITS) - set(remaining.values())
    if missing:
        remedy = "given-test" if missing == {"val"} else "stratified"
        raise BundleError(f"the source has no {' and no '.join(sorted(missing))} images; use --data.split {remedy}")
    _require_training_images(images, remaining)
    return remaining


def given_test(
    images: Sequence[ImageFile],
    digests: Mapping[str, str],
    seed: int,
    alike: Alike = (),
    shares: Shares = DEFAULT,
) -> dict[str, Split]:
    """Return path -> split: the source's own test split; ``shares.val`` of every label's other images validate.

    This is how figures on a published test split are made, once nothing is left to choose: there is as much to learn
    from as the source allows, and temperature and gates still see images that were not trained on. Files that are in
    the test split too are left out; other images that look the same are on one side.
    """
    if any(p.split is None for p in images) or not any(p.split == "test" for p in images):
        raise BundleError(_no_split_of_its_own(images, "test split"))
    tested = {digests[p.path] for p in images if p.split == "test"}
    rest = [p for p in images if p.split != "test" and digests[p.path] not in tested]
    splits: dict[str, Split] = {p.path: "test" for p in images if p.split == "test"}
    splits |= {p.path: "train" for p in rest}
    for label, groups in _groups_of_labels(rest, digests, seed, alike, least=2).items():
        if len(groups) < 2:
            raise BundleError(
                f"label {label!r} has {len(groups)} distinct images besides its test; a split needs two or more"
            )
        validated = min(max(1, sum(number < shares.val for number, _ in groups)), len(groups) - 1)
        splits |= {path: "val" for _, paths in groups[:validated] for path in paths}
    _require_training_images(images, splits)
    return splits


def _no_split_of_its_own(images: Sequence[ImageFile], what: str = "split") -> str:
    without = [image.path for image in images if image.split is None]
    if len(without) in (0, len(images)):
        return f"this source has no {what} of its own; use --data.split stratified"
    return (
        f"{counted(len(without), 'image')} of {len(images)} without a split, {without[0]} among them: state one for "
        "each, or use --data.split stratified"
    )


def _require_training_images(images: Sequence[ImageFile], splits: Mapping[str, Split]) -> None:
    trained = {image.label for image in images if splits.get(image.path) == "train"}
    missing = sorted({image.label for image in images} - trained)
    if missing:
        raise BundleError(
            f"validation or test images but none to train on: {counted(len(missing), 'label')}, {missing[0]!r} among "
            "them. Add some or remove the label"
        )


def _groups_of_labels(
    images: Sequence[ImageFile], digests: Mapping[str, str], seed: int, alike: Alike, least: int
) -> dict[str, list[tuple[float, list[str]]]]:
    """Return label -> groups of images that look the same, as (number of 0-1, paths), by rising number.

    Groups with images of several labels are left out. A label of which fewer than ``least`` groups remain, because all
    of its images look alike, has a group per distinct file instead.
    """
    labels: dict[str, set[str]] = {image.label: set() for image in images}
    for image in images:
        labels[image.label].add(image.path)
    by_label: dict[str, list[tuple[float, list[str]]]] = {}
    groups = _connected([image.path for image in images], digests, alike)
    files = _connected([image.path for image in images], digests, ())
    for label, paths in labels.items():
        for candidates in (groups, files):
            exclusive = {id(group): group for path in paths if set(group := candidates[path]) <= paths}
            if len(exclusive) >= least:
                break
        by_label[label] = sorted(
            (max(_number(seed, digests[path]) for path in g), sorted(g)) for g in exclusive.values()
        )
    return by_label


def _connected(paths: Sequence[str], digests: Mapping[str, str], alike: Alike) -> dict[str, list[str]]:
    """Return path -> the paths of its group: identical files, and those that pairs connect."""
    groups: dict[str, list[str]] = {path: [path] for path in paths}
    first: dict[str, str] = {}
    same = [(first.setdefault(digests[path], path), path) for path in paths]
    for one, other in (*same, *alike):
        if one not in groups or other not in groups or groups[one] is groups[other]:
            continue
        larger, smaller = sorted((groups[one], groups[other]), key=len, reverse=True)
        larger.extend(smaller)
        for path in smaller:
            groups[path] = larger
    return groups


def side_of(seed: int, name: str, shares: Shares = DEFAULT) -> Split:
    """Return the side that follows from the number of a file's digest or a group's name."""
    return shares.side(_number(seed, name))


def _number(seed: int, digest: str) -> float:
    """Return a number of 0-1, evenly distributed, that follows from seed and file alone."""
    return int(hashlib.sha256(f"{seed}/{digest}".encode()).hexdigest()[:13], 16) / 16**13
