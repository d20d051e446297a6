"""The description of a data set: what it counts, which duplicates it finds, and that its images can be looked at."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import ExifTags, Image, ImageEnhance

from tests.unit.training import synthetic_images
from training.__main__ import main
from training.data.duplicates import perceptual_hash

TURNED_LEFT = 8


def describe(source: str, root: Path, folder: Path, *more: str) -> dict[str, Any]:
    assert (
        main(["data", "describe", "--data.source", source, "--data.root", str(root), "--output", str(folder), *more])
        == 0
    )
    facts: dict[str, Any] = json.loads((folder / "describe.json").read_text(encoding="utf-8"))
    return facts


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of 12 blue, 6 green and 16 red images: 13 drawn, one of them as a file and as an image twice."""
    root = synthetic_images.image_folder(tmp_path_factory.mktemp("data") / "colours")
    for number in range(6):
        (root / "green" / f"{number:02d}.png").unlink()
    shutil.copy(root / "red" / "03.png", root / "red" / "again.png")
    with Image.open(root / "red" / "04.png") as image:
        ImageEnhance.Brightness(image).enhance(0.8).resize((105, 123)).save(root / "blue" / "copy.jpg", quality=80)
        turn = Image.Exif()
        turn[ExifTags.Base.Orientation] = TURNED_LEFT
        synthetic_images.image((9, 9, 90), 4000).save(root / "red" / "turned.jpg", exif=turn)
        synthetic_images.image((90, 9, 90), 4001).convert("L").save(root / "red" / "grey.png")
    (root / "red" / "empty.jpg").write_bytes(b"")
    (root / "red" / "notes.txt").write_text("none of them", encoding="utf-8")
    return describe("imagefolder", root, root.parent / "report") | {"folder": root.parent / "report"}


def test_images_are_counted_by_label_format_and_colour(facts: dict[str, Any]) -> None:
    assert facts["labels"] == {"blue": 13, "green": 6, "red": 15}
    assert facts["balance"] == {"labels": 3, "least": 6, "median": 13, "most": 15, "most_to_least": 2.5}
    assert facts["images"] == 34
    assert facts["formats"] == {"PNG": 32, "JPEG": 2}
    assert facts["colours"] == {"RGB": 33, "L": 1}


def test_what_phones_write_is_described_too(tmp_path: Path) -> None:
    turn = Image.Exif()
    turn[ExifTags.Base.Orientation] = TURNED_LEFT
    pillow_heif.register_heif_opener()
    for number, kind in enumerate(("heic", "avif", "webp", "tiff")):
        label = ("blue", "red")[number % 2]
        (tmp_path / "set" / label).mkdir(parents=True, exist_ok=True)
        drawn = synthetic_images.image((90, 9, 9), number).resize((70, 82))
        drawn.save(tmp_path / "set" / label / f"{number}.{kind}", exif=turn.tobytes())
    described = describe("imagefolder", tmp_path / "set", tmp_path / "report")
    assert described["formats"] == {"HEIF": 1, "AVIF": 1, "WEBP": 1, "TIFF": 1}
    assert described["turned_by_exif"] == 3, "libheif turns a HEIC itself"
    assert described["sizes"]["width"] == {"least": 82, "median": 82, "most": 82}


def test_sizes_are_those_of_upright_images(facts: dict[str, Any]) -> None:
    assert facts["turned_by_exif"] == 1
    assert facts["sizes"]["width"] == {"least": 35, "median": 35, "most": 105}
    assert facts["sizes"]["height"] == {"least": 35, "median": 41, "most": 123}
    assert facts["sizes"]["width_to_height"]["most"] == round(41 / 35, 3)


def test_the_same_file_and_a_paler_larger_copy_are_found_and_nothing_else(facts: dict[str, Any]) -> None:
    assert facts["duplicates"]["same_files"] == [["red/03.png", "red/again.png"]]
    same, copy = facts["duplicates"]["pairs"]
    assert (same["paths"], same["distance"], same["same_file"]) == (["red/03.png", "red/again.png"], 0, True)
    assert (copy["paths"], copy["labels"], copy["same_file"]) == (
        ["blue/copy.jpg", "red/04.png"],
        ["blue", "red"],
        False,
    )
    assert 0 < copy["distance"] < facts["duplicates"]["distance"]


def test_files_that_cannot_be_used_are_listed(facts: dict[str, Any]) -> None:
    assert {file["path"]: file["reason"] for file in facts["corrupt"]} == {
        "red/empty.jpg": "empty",
        "red/notes.txt": "not an image by its name",
    }


def test_the_report_names_what_was_found_and_its_pictures_are_there(facts: dict[str, Any]) -> None:
    report = (facts["folder"] / "report.md").read_text(encoding="utf-8")
    assert report.startswith("# imagefolder: 34 images of 3 labels")
    assert "- `blue/copy.jpg` (blue) and `red/04.png` (red)" in report
    assert "| `red/empty.jpg` | empty |" in report
    for name in ("labels.png", "sizes.png", "alike.png", "samples.jpg", "duplicates.jpg"):
        assert f"({name})" in report
        with Image.open(facts["folder"] / name) as image:
            assert min(image.size) > 100
            assert np.asarray(image.convert("L")).std() > 5  # something is drawn


def test_twins_on_two_sides_of_a_division_are_counted(tmp_path: Path) -> None:
    root = synthetic_images.flowers(
        tmp_path / "flowers", labels=[*range(1, 103), 1, 1], train=[*range(2, 103)], val=[103], test=[1, 104]
    )
    shutil.copy(root / "jpg" / "image_00007.jpg", root / "jpg" / "image_00104.jpg")  # in train and test
    with Image.open(root / "jpg" / "image_00008.jpg") as image:
        image.resize((70, 82)).save(root / "jpg" / "image_00103.jpg", quality=80)  # in train and validation
    facts = describe("flowers102", root, tmp_path / "report")
    assert facts["splits"] == {
        "official": {
            "images": {"train": 101, "val": 1, "test": 2},
            "same_files_across": 1,
            "duplicates_across": 2,
            "validated_with_a_duplicate_in_training": 1,
            "tested_with_a_duplicate_in_training": 1,
        }
    }  # and no stratified one: there is a single image of most labels


def test_a_division_that_was_written_once_is_looked_at_too(tmp_path: Path) -> None:
    root = synthetic_images.pets(tmp_path / "data")
    options = ["--data.source", "cats-and-dogs", "--data.root", str(root), "--cache", str(tmp_path)]
    assert main(["data", "manifest", *options, "--data.seed", "4", "--output", str(tmp_path / "once.csv")]) == 0
    facts = describe("cats-and-dogs", root, tmp_path / "report", "--manifest", str(tmp_path / "once.csv"))
    assert facts["splits"]["manifest"]["images"] == {"train": 16, "val": 2, "test": 2}
    assert list(facts["splits"]) == ["stratified, seed 1", "manifest"]


def test_a_label_of_which_nothing_decodes_is_counted_as_none(tmp_path: Path) -> None:
    root = synthetic_images.image_folder(tmp_path / "data", per_label=2)
    for file in (root / "red").glob("*.png"):
        file.write_bytes(b"nonsense")
    facts = describe("imagefolder", root, tmp_path / "report")
    assert facts["labels"] == {"blue": 2, "green": 2, "red": 0}
    assert "2 at most; some label has none." in (tmp_path / "report" / "report.md").read_text(encoding="utf-8")


def test_a_set_of_which_nothing_decodes_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = synthetic_images.image_folder(tmp_path / "data", per_label=2)
    for file in root.rglob("*.png"):
        file.write_bytes(b"nonsense")
    assert main(["data", "describe", "imagefolder", "--root", str(root), "--output", str(tmp_path / "report")]) == 1
    assert "not one of 6 images decodes" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


def test_a_look_forgives_size_and_brightness_but_no_other_motif() -> None:
    image = synthetic_images.image((120, 110, 100), 1)
    paler = ImageEnhance.Brightness(image.resize((90, 105), Image.Resampling.BICUBIC)).enhance(1.2)
    own, pale, other = (
        perceptual_hash(np.asarray(i)) for i in (image, paler, synthetic_images.image((120, 110, 100), 2))
    )
    assert np.bitwise_count(own ^ pale).sum() < 40
    assert np.bitwise_count(own ^ other).sum() > 90
