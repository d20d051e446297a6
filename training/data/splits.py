"""Dividing photographs: seeded and stratified, or as the source does, and exact twins never on two sides of a fence."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from random import Random

from training.data.datasets import SPLITS, Photograph, Split
from visionserve.errors import BundleError

HELD_OUT = 0.1  # for validation, and as much again for the test


def divide(how: str, photographs: Sequence[Photograph], digests: Mapping[str, str], seed: int) -> dict[str, Split]:
    """Return path -> split by the way named ``stratified``, ``given`` or ``given-test``."""
    if how == "stratified":
        return stratified(photographs, digests, seed)
    return given(photographs, digests) if how == "given" else given_test(photographs, digests, seed)


def stratified(photographs: Sequence[Photograph], digests: Mapping[str, str], seed: int) -> dict[str, Split]:
    """Return path -> split, 80/10/10 within each label, the same for the same files and seed.

    Photographs that are byte for byte the same all go to the training split, where a twin does no harm.

    Raises:
        BundleError: a label has fewer than three distinct photographs.
    """
    twins = _twins(digests)
    by_label: dict[str, list[str]] = defaultdict(list)
    for photograph in photographs:
        by_label[photograph.label].append(photograph.path)
    splits: dict[str, Split] = {}
    for label, paths in by_label.items():
        single = sorted(path for path in paths if path not in twins)
        if len(single) < 3:
            raise BundleError(f"label {label!r} has {len(single)} distinct photographs; three or more can be divided")
        Random(f"{seed}/{label}").shuffle(single)  # noqa: S311  # no secret
        held = max(1, round(HELD_OUT * len(paths)))
        held = min(held, (len(single) - 1) // 2)
        for place, path in enumerate(single):
            splits[path] = "val" if place < held else "test" if place < 2 * held else "train"
        splits.update({path: "train" for path in paths if path in twins})
    return splits


def given(photographs: Sequence[Photograph], digests: Mapping[str, str]) -> dict[str, Split]:
    """Return path -> split as the source divides them.

    Of twins in several splits only those in the last of train, val, test are kept: no photograph that was learnt from
    is ever measured on.
    """
    splits: dict[str, Split] = {p.path: p.split for p in photographs if p.split is not None}
    if len(splits) != len(photographs):
        raise BundleError("this source has no division of its own; use --data.split stratified")
    last: dict[str, int] = defaultdict(int)
    for path, split in splits.items():
        last[digests[path]] = max(last[digests[path]], SPLITS.index(split))
    kept = {path: split for path, split in splits.items() if SPLITS.index(split) == last[digests[path]]}
    missing = set(SPLITS) - set(kept.values())
    if missing:
        remedy = "given-test" if missing == {"val"} else "stratified"
        raise BundleError(
            f"the source has no {' and no '.join(sorted(missing))} photographs; use --data.split {remedy}"
        )
    return kept


def given_test(photographs: Sequence[Photograph], digests: Mapping[str, str], seed: int) -> dict[str, Split]:
    """Return path -> split: the source's own test split; 10 % of every label's other photographs validate.

    This is how figures on a published test split are made, once nothing is left to choose: there is as much to learn
    from as the source allows, and temperature and gates still see photographs that were not learnt from. Photographs
    with a twin in the test split are left out, other twins are learnt from.
    """
    if any(p.split is None for p in photographs) or not any(p.split == "test" for p in photographs):
        raise BundleError("this source has no test split of its own; use --data.split stratified")
    tested = {digests[p.path] for p in photographs if p.split == "test"}
    twins = _twins(digests)
    splits: dict[str, Split] = {p.path: "test" for p in photographs if p.split == "test"}
    by_label: dict[str, list[str]] = defaultdict(list)
    for photograph in photographs:
        if photograph.split != "test" and digests[photograph.path] not in tested:
            by_label[photograph.label].append(photograph.path)
    for label, paths in by_label.items():
        single = sorted(path for path in paths if path not in twins)
        if len(single) < 2:
            raise BundleError(
                f"label {label!r} has {len(single)} distinct photographs besides its test; two can be divided"
            )
        Random(f"{seed}/{label}").shuffle(single)  # noqa: S311  # no secret
        held = max(1, round(HELD_OUT * len(paths)))
        splits |= {path: "val" if place < held else "train" for place, path in enumerate(single)}
        splits |= {path: "train" for path in paths if path in twins}
    return splits


def _twins(digests: Mapping[str, str]) -> set[str]:
    by_digest: dict[str, list[str]] = defaultdict(list)
    for path, digest in digests.items():
        by_digest[digest].append(path)
    return {path for paths in by_digest.values() if len(paths) > 1 for path in paths}
