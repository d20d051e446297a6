"""`--data.split by-group`: all images of a website or camera are on one side, whatever is added later."""

from collections import defaultdict
from collections.abc import Sequence

import pytest

from training.data import splits
from training.data.datasets import ImageFile
from training.recipe import Shares
from visionserve.errors import BundleError


def images_of(groups: Sequence[str], per_group: int = 5) -> list[ImageFile]:
    return [ImageFile(f"{group}/{n}.jpg", "rose", group=group) for group in groups for n in range(per_group)]


def digests(images: Sequence[ImageFile]) -> dict[str, str]:
    return {image.path: f"{image.path:>064}" for image in images}


GROUPS = [f"site{number}.example" for number in range(200)]


def test_no_group_is_on_two_sides_and_the_shares_are_as_asked() -> None:
    images = images_of(GROUPS)
    assigned = splits.divide("by-group", images, digests(images), seed=1, shares=Shares(0.2, 0.2))
    sides: dict[str, set[str]] = defaultdict(set)
    for image in images:
        sides[image.group].add(assigned[image.path])
    assert all(len(side) == 1 for side in sides.values())
    held_out = [sum("test" in side for side in sides.values()), sum("val" in side for side in sides.values())]
    assert all(25 <= count <= 55 for count in held_out)  # 40, give or take three deviations


def test_what_is_added_later_moves_nothing() -> None:
    images = images_of(GROUPS)
    before = splits.divide("by-group", images, digests(images), seed=1)
    more = [*images, *images_of([f"new{number}.example" for number in range(50)]), *images_of(GROUPS, per_group=9)[5:]]
    unique = list({image.path: image for image in more}.values())
    after = splits.divide("by-group", unique, digests(unique), seed=1)
    assert {path: after[path] for path in before} == before


def test_copies_on_another_side_are_left_out_of_the_earlier_one() -> None:
    images = images_of(GROUPS)
    assigned = splits.divide("by-group", images, digests(images), seed=1)
    train, test = (next(path for path, side in assigned.items() if side == name) for name in ("train", "test"))
    again = next(path for path, side in assigned.items() if side == "val")
    same = digests(images) | {train: "c" * 64, test: "c" * 64}
    left = splits.divide("by-group", images, same, seed=1, alike=[(again, test)])
    assert set(assigned) - set(left) == {train, again}


def test_images_without_a_group_are_named() -> None:
    images = [*images_of(GROUPS), ImageFile("lost.jpg", "rose")]
    with pytest.raises(BundleError, match=r"^lost\.jpg and 0 other images have no group .* csv\.group"):
        splits.divide("by-group", images, digests(images), seed=1)


def test_too_few_groups_are_said() -> None:
    images = images_of(GROUPS[:2])
    with pytest.raises(BundleError, match=r"2 groups leave no .* images: more groups, another seed"):
        splits.divide("by-group", images, digests(images), seed=1)
