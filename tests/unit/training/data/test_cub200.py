"""CUB-200-2011: read as published, refused in one sentence where a list cannot be right."""

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.unit.training import synthetic_birds
from training.__main__ import main
from training.data import manifest as manifests
from training.data.datasets import collect, cub200
from training.data.datasets.cub200 import Box, Part
from visionserve.errors import BundleError


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    return synthetic_birds.folder(tmp_path / "CUB_200_2011")


def test_labels_are_readable_and_in_the_published_order(birds: Path) -> None:
    assert collect("cub200", birds).labels == ("Red Bird", "Green winged Bird", "Blue Bird")


def test_images_on_disk_are_found_with_their_official_split(birds: Path) -> None:
    images = collect("cub200", birds).images
    assert f"images/{synthetic_birds.MISSING}" not in {p.path for p in images}
    assert Counter(p.split for p in images) == {"train": 12, "test": 11}
    assert images[0].path == "images/001.Red_Bird/bird_1.jpg"


def test_of_a_part_of_the_classes_only_their_labels_are_known(birds: Path) -> None:
    shutil.rmtree(birds / "images" / synthetic_birds.CLASSES[2])
    assert collect("cub200", birds).labels == ("Red Bird", "Blue Bird")


def test_images_to_validate_on_are_taken_out_of_the_official_training_split(birds: Path) -> None:
    collection = collect("cub200", birds)
    manifest = manifests.build(collection, "given-test", 1)
    assert Counter(row.split for row in manifest.rows) == {"train": 9, "val": 3, "test": 11}
    assert Counter(row.label for row in manifest.rows if row.split == "val") == dict.fromkeys(collection.labels, 1)
    tested = {row.path for row in manifest.rows if row.split == "test"}
    assert tested == {p.path for p in collection.images if p.split == "test"}


def test_the_official_split_alone_has_nothing_to_validate_on(birds: Path) -> None:
    with pytest.raises(BundleError, match=r"no val images; use --data\.split given-test"):
        manifests.build(collect("cub200", birds), "given", 1)


def test_boxes_and_parts_are_in_pixels_of_the_file(birds: Path) -> None:
    known = cub200.annotations(birds)
    assert len(known) == 24
    found = known["images/002.Green_winged_Bird/bird_1.jpg"]
    x, y = synthetic_birds.centre(9)
    assert found.box == Box(x - 12.0, y - 12.0, 24.0, 24.0)
    assert found.parts == (
        Part("beak", x, y, visible=True),
        Part("left wing", x + 12.0, y, visible=True),
        Part("tail", 0.0, 0.0, visible=False),
    )


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("classes.txt", None, r"classes\.txt is missing"),
        ("image_class_labels.txt", "1 4", "image 1 needs a class"),
        ("train_test_split.txt", "1 2", "and a 0 or 1"),
        ("images.txt", "one 001.Red_Bird/bird_1.jpg", r"images\.txt line 1 cannot be read"),
        ("images.txt", "1", r"images\.txt line 1 cannot be read"),
    ],
)
def test_a_list_that_cannot_be_right_is_refused_in_one_sentence(
    birds: Path, file: str, line: str | None, message: str
) -> None:
    damage(birds / file, line)
    with pytest.raises(BundleError, match=message) as caught:
        collect("cub200", birds)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("parts/part_locs.txt", None, r"part_locs\.txt is missing"),
        ("parts/parts.txt", None, r"parts\.txt is missing"),
        ("bounding_boxes.txt", "99 1.0 2.0 3.0 4.0", "no box of image 1"),
        ("bounding_boxes.txt", "1 1.0 2.0 3.0", "line 1 cannot be read"),
        ("parts/part_locs.txt", "1 9 1.0 2.0 1", "unknown part 9"),
        ("parts/part_locs.txt", "1 1 left 2.0 1", "line 1 cannot be read"),
    ],
)
def test_annotations_that_cannot_be_right_are_refused_and_do_not_stop_anything_else(
    birds: Path, file: str, line: str | None, message: str
) -> None:
    damage(birds / file, line)
    with pytest.raises(BundleError, match=message) as caught:
        cub200.annotations(birds)
    assert "\n" not in str(caught.value)
    assert len(collect("cub200", birds).images) == 23


def test_a_folder_without_its_images_is_refused(birds: Path) -> None:
    shutil.rmtree(birds / "images")
    with pytest.raises(BundleError, match="none of the images"):
        collect("cub200", birds)


def test_the_command_line_says_in_one_sentence_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data.source", "cub200", "--data.split", "given-test", "--data.root", str(tmp_path)]
    assert main(["data", "manifest", *options]) == 1
    assert "classes.txt is missing" in capsys.readouterr().err


@pytest.mark.skipif(
    "VISIONSERVE_DATA" not in os.environ, reason="set VISIONSERVE_DATA to a folder that has CUB_200_2011"
)
def test_the_published_facts_are_found() -> None:
    root = Path(os.environ["VISIONSERVE_DATA"], "CUB_200_2011")
    collection, known = collect("cub200", root), cub200.annotations(root)
    of_label = Counter(p.label for p in collection.images)
    # The first five species have 60, 60, 58, 60 and 44 images, about 30 of each are for training.
    assert list(of_label.items())[:5] == [
        ("Black footed Albatross", 60),
        ("Laysan Albatross", 60),
        ("Sooty Albatross", 58),
        ("Groove billed Ani", 60),
        ("Crested Auklet", 44),
    ]
    first = [p for p in collection.images if p.label in list(of_label)[:5]]
    assert Counter(p.split for p in first) == {"train": 150, "test": 132}
    assert len(collection.labels) in (5, 200)
    assert all(len(known[p.path].parts) == 15 for p in collection.images)


def damage(path: Path, line: str | None) -> None:
    """Replace the first line of a list, or remove the list."""
    if line is None:
        path.unlink()
        return
    rest = path.read_text(encoding="utf-8").splitlines()[1:]
    path.write_text("\n".join([line, *rest]) + "\n", encoding="utf-8")
