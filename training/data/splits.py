"""Splits: seeded and stratified, or the source's own; exact duplicates are always on the same side."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from random import Random

from training.data.datasets import SPLITS, ImageFile, Split
from visionserve.errors import BundleError

HELD_OUT = 0.1  # for validation, and as much again for the test


def divide(how: str, images: Sequence[ImageFile], digests: Mapping[str, str], seed: int) -> dict[str, Split]:
    """Return path -> split by the way named ``stratified``, ``given`` or ``given-test``."""
    if how == "stratified":
        return stratified(images, digests, seed)
    return given(images, digests) if how == "given" else given_test(images, digests, seed)


def stratified(images: Sequence[ImageFile], digests: Mapping[str, str], seed: int) -> dict[str, Split]:
    """Return path -> split, 80/10/10 within each label, the same for the same files and seed.

    Images that are byte for byte the same all go to the training split, where a duplicate does no harm.

    Raises:
        BundleError: a label has fewer than three distinct images.
    """
    duplicates = _duplicates(digests)
    by_label: dict[str, list[str]] = defaultdict(list)
    for image in images:
        by_label[image.label].append(image.path)
    splits: dict[str, Split] = {}
    for label, paths in by_label.items():
        single = sorted(path for path in paths if path not in duplicates)
        if len(single) < 3:
            raise BundleError(f"label {label!r} has {len(single)} distinct images; three or more can be divided")
        Random(f"{seed}/{label}").shuffle(single)  # noqa: S311  # no secret
        held_out = max(1, round(HELD_OUT * len(paths)))
        held_out = min(held_out, (len(single) - 1) // 2)
        for index, path in enumerate(single):
            splits[path] = "val" if index < held_out else "test" if index < 2 * held_out else "train"
        splits.update({path: "train" for path in paths if path in duplicates})
    return splits


def given(images: Sequence[ImageFile], digests: Mapping[str, str]) -> dict[str, Split]:
    """Return path -> split as the source divides them.

    Of duplicates in several splits only those in the last of train, val, test are kept: no image that is trained on
    is ever measured on.
    """
    splits: dict[str, Split] = {p.path: p.split for p in images if p.split is not None}
    if len(splits) != len(images):
        raise BundleError("this source has no split of its own; use --data.split stratified")
    last: dict[str, int] = defaultdict(int)
    for path, split in splits.items():
        last[digests[path]] = max(last[digests[path]], SPLITS.index(split))
    remaining = {path: split for path, split in splits.items() if SPLITS.index(split) == last[digests[path]]}
    missing = set(SPLITS) - set(remaining.values())
    if missing:
        remedy = "given-test" if missing == {"val"} else "stratified"
        raise BundleError(f"the source has no {' and no '.join(sorted(missing))} images; use --data.split {remedy}")
    return remaining


def given_test(images: Sequence[ImageFile], digests: Mapping[str, str], seed: int) -> dict[str, Split]:
    """Return path -> split: the source's own test split; 10 % of every label's other images validate.

    This is how figures on a published test split are made, once nothing is left to choose: there is as much to learn
    from as the source allows, and temperature and gates still see images that were not trained on. Images
    with a duplicate in the test split are left out, other duplicates are trained on.
    """
    if any(p.split is None for p in images) or not any(p.split == "test" for p in images):
        raise BundleError("this source has no test split of its own; use --data.split stratified")
    tested = {digests[p.path] for p in images if p.split == "test"}
    duplicates = _duplicates(digests)
    splits: dict[str, Split] = {p.path: "test" for p in images if p.split == "test"}
    by_label: dict[str, list[str]] = defaultdict(list)
    for image in images:
        if image.split != "test" and digests[image.path] not in tested:
            by_label[image.label].append(image.path)
    for label, paths in by_label.items():
        single = sorted(path for path in paths if path not in duplicates)
        if len(single) < 2:
            raise BundleError(f"label {label!r} has {len(single)} distinct images besides its test; two can be divided")
        Random(f"{seed}/{label}").shuffle(single)  # noqa: S311  # no secret
        held_out = max(1, round(HELD_OUT * len(paths)))
        splits |= {path: "val" if index < held_out else "train" for index, path in enumerate(single)}
        splits |= {path: "train" for path in paths if path in duplicates}
    return splits


def _duplicates(digests: Mapping[str, str]) -> set[str]:
    by_digest: dict[str, list[str]] = defaultdict(list)
    for path, digest in digests.items():
        by_digest[digest].append(path)
    return {path for paths in by_digest.values() if len(paths) > 1 for path in paths}
