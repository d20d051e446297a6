"""Splits by a hash of seed and file: what is added changes no side, and what looks the same is on one."""

import shutil
from collections import Counter, defaultdict
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from training.data import prepare, splits
from training.data.datasets import ImageFile
from training.recipe import Data, Shares
from visionserve.errors import BundleError


def folder(label: str, count: int, first: int = 0) -> list[ImageFile]:
    return [ImageFile(f"{label}/{number}.jpg", label) for number in range(first, first + count)]


def digests(images: list[ImageFile], salt: int = 0) -> dict[str, str]:
    return {image.path: f"{salt}/{image.path}" for image in images}


def test_shares_are_80_10_10_within_each_label_and_no_part_is_empty() -> None:
    counts: Counter[str] = Counter()
    for salt in range(400):
        images = folder("rose", 20) + folder("iris", 3)
        assigned = splits.stratified(images, digests(images, salt), seed=1)
        for label in ("rose", "iris"):
            assert {assigned[i.path] for i in images if i.label == label} == {"train", "val", "test"}
        counts.update(assigned[i.path] for i in images if i.label == "rose")
    # A part that would be empty gets one: 12 % of labels of 20, so a little over 10 %.
    assert counts["test"] / 8000 == pytest.approx(0.106, abs=0.012)
    assert counts["val"] / 8000 == pytest.approx(0.106, abs=0.012)


@pytest.mark.parametrize(("val", "test"), [(0.15, 0.15), (0.2, 0.1)])
def test_shares_are_a_setting_and_the_default_is_a_tenth_each(val: float, test: float) -> None:
    images = folder("rose", 4000) + folder("iris", 3)
    assigned = splits.divide("stratified", images, digests(images), 1, shares=Shares(val, test))
    counts = Counter(assigned[i.path] for i in images if i.label == "rose")
    assert counts["val"] / 4000 == pytest.approx(val, abs=0.025)  # four standard deviations
    assert counts["test"] / 4000 == pytest.approx(test, abs=0.025)
    assert {assigned[i.path] for i in images if i.label == "iris"} == {"train", "val", "test"}
    usual = splits.stratified(images, digests(images), 1)
    assert usual == splits.divide("stratified", images, digests(images), 1, shares=Shares(0.1, 0.1)) != assigned


def test_larger_shares_move_images_from_training_only() -> None:
    images = folder("rose", 1000)
    less, more = (
        splits.stratified(images, digests(images), 1, shares=shares) for shares in (Shares(), Shares(0.15, 0.1))
    )
    assert {(less[path], side) for path, side in more.items() if less[path] != side} == {("train", "val")}


@pytest.mark.parametrize(("val", "test"), [(0.0, 0.1), (0.1, -0.1), (0.5, 0.5)])
def test_shares_that_leave_a_split_empty_are_refused(val: float, test: float) -> None:
    with pytest.raises(BundleError, match="leave some to train on"):
        Shares(val, test)


@pytest.mark.parametrize("per_label", [5, 28, 100])
def test_images_that_are_added_move_none_from_training_to_validation_or_test(per_label: int) -> None:
    moved = 0
    for salt in range(100):
        before = folder("rose", per_label) + folder("iris", per_label)
        after = before + folder("rose", 1, 1000) + folder("iris", 10, 1000) + folder("lily", per_label)
        old = splits.stratified(before, digests(before, salt), seed=1)
        new = splits.stratified(after, digests(after, salt), seed=1)
        assert not [path for path, side in old.items() if side == "train" and new[path] != "train"]
        moved += sum(new[path] != side for path, side in old.items())
    # Only what was held out because a small label had none: of 28 per label in 5 % of them.
    assert moved / (200 * per_label) < {5: 0.3, 28: 0.01, 100: 0.001}[per_label]


def test_the_side_depends_on_the_file_and_not_on_its_name() -> None:
    images = folder("rose", 100)
    renamed = [ImageFile(f"rose/other-{image.path[5:]}", "rose") for image in images]
    old = splits.stratified(images, digests(images), seed=1)
    same = {other.path: digests(images)[image.path] for image, other in zip(images, renamed, strict=True)}
    new = splits.stratified(renamed, same, seed=1)
    assert list(new.values()) == list(old.values())
    assert old != splits.stratified(images, digests(images), seed=2)


def test_images_that_look_the_same_are_on_one_side_and_rather_in_training() -> None:
    images = folder("rose", 300) + folder("iris", 300)
    rng = Random(0)
    paths = [image.path for image in images]
    alike = [(rng.choice(paths), rng.choice(paths)) for _ in range(150)]
    assigned = splits.stratified(images, digests(images), 1, alike)
    alone = splits.stratified(images, digests(images), 1)
    assert all(assigned[one] == assigned[other] for one, other in alike)
    assert not [path for path in paths if alone[path] == "train" != assigned[path]]
    two_labels = {path for pair in alike for path in pair if pair[0][:4] != pair[1][:4]}
    assert {assigned[path] for path in two_labels} == {"train"}


def test_a_label_whose_images_all_look_alike_is_split_by_its_files() -> None:
    images = folder("wall", 50) + folder("rose", 50)
    alike = [(f"wall/{number}.jpg", f"wall/{number + 1}.jpg") for number in range(49)]
    assigned = splits.stratified(images, digests(images), 1, alike)
    assert {assigned[image.path] for image in images if image.label == "wall"} == {"train", "val", "test"}


def test_copies_at_another_brightness_and_size_are_found_and_kept_on_one_side(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in ("rose", "iris"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(30):
            coarse = Image.fromarray(rng.integers(0, 255, (6, 6, 3), np.uint8)).resize((90, 80))
            coarse.save(tmp_path / "data" / label / f"{number:02d}.png")
            bright = ImageEnhance.Brightness(coarse).enhance(0.8).resize((120, 107))
            bright.save(tmp_path / "data" / label / f"{number:02d}-copy.jpg", quality=80)
    shutil.copy(tmp_path / "data" / "rose" / "03.png", tmp_path / "data" / "rose" / "again.png")
    manifest, left_out = prepare.make(Data(source="imagefolder", root=str(tmp_path / "data")), tmp_path / "cache")
    sides: dict[str, set[str]] = defaultdict(set)
    for row in manifest.rows:
        sides[row.label + row.path[5:7]].add(row.split)
    assert left_out == ()
    assert all(len(side) == 1 for side in sides.values())
    assert len(manifest.part("test")) >= 2


@pytest.mark.parametrize("how", ["given", "given-test"])
def test_a_label_without_images_to_train_on_is_named(how: str) -> None:
    images = [ImageFile(f"{split}/rose/{n}.jpg", "rose", split) for split in ("train", "val", "test") for n in range(9)]
    images.append(ImageFile("test/iris/1.jpg", "iris", "test"))
    with pytest.raises(BundleError, match=r"none to train on: 1 label, 'iris' among"):
        splits.divide(how, images, digests(images), 1)
