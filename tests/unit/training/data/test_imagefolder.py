"""Folders as tools and systems leave them: splits by any usual name, hidden files, names that look the same."""

import os
import shutil
import unicodedata
from pathlib import Path

import pytest

from tests.unit.training import synthetic_images
from training.__main__ import main
from training.data.datasets import collect
from visionserve.errors import BundleError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return synthetic_images.image_folder(tmp_path / "data", per_label=12)


def split_folders(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        synthetic_images.image_folder(root / name, per_label=4)
        for file in (root / name).rglob("*.png"):
            synthetic_images.image((9, 9, 9), hash((number, file.as_posix())) % 2**31).save(file)
    return root


@pytest.mark.parametrize("names", [("train", "valid"), ("train", "validation", "test"), ("Training", "val", "Testing")])
def test_the_usual_names_of_splits_are_splits(tmp_path: Path, names: tuple[str, ...]) -> None:
    collection = collect("imagefolder", split_folders(tmp_path, *names))
    assert collection.labels == ("blue", "green", "red")
    assert {image.split for image in collection.images} == {"train", "val", "test"} - (
        {"test"} if len(names) == 2 else set()
    )


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("valid", "rose"), r"valid is named like a split and .*rose like a label"),
        (("train", "val", "valid"), r"several folders for the same split \(val, valid\): merge them"),
        (("train",), r"a folder named train but not train and val or test: .*--data\.root, such as .*train"),
        (("val", "test"), "but not train"),
    ],
)
def test_folders_that_are_half_splits_are_refused_by_name(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        collect("imagefolder", split_folders(tmp_path, *names))


def test_hidden_folders_and_what_is_not_read_are_left_out_and_listed_per_label(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for hidden in (root / "red" / ".ipynb_checkpoints", root / "red" / "@eaDir", root / "__MACOSX" / "red"):
        hidden.mkdir(parents=True)
        shutil.copy(root / "red" / "00.png", hidden / "00.png")
    (root / "red" / "photo.JXL").write_bytes(b"x")
    (root / "red" / "text.jpg").write_text("not an image", encoding="utf-8")
    (root / "README.md").write_text("ours", encoding="utf-8")
    options = ["--data.source", "imagefolder", "--data.root", str(root), "--data.corrupt", "skip"]
    assert main(["data", "manifest", *options, "--cache", str(tmp_path), "--output", str(tmp_path / "m.csv")]) == 0
    printed = capsys.readouterr().out
    assert "36 images of 3 labels" in printed
    assert "left out 6 files: 3 hidden, 1 not an image of an accepted format" in printed
    (red,) = [line for line in printed.splitlines() if line.startswith("  red:")]
    assert "left out 4: " in red
    assert ".jxl is not read: save it as JPEG or PNG" in red
    assert "left out" not in next(line for line in printed.splitlines() if line.startswith("  blue:"))
    assert (tmp_path / "corrupt.csv").read_text(encoding="utf-8").count("hidden") == 3


def test_two_unicode_forms_of_a_name_are_refused_and_labels_have_one_form(root: Path) -> None:
    (root / "red").rename(root / unicodedata.normalize("NFD", "rosé"))
    assert unicodedata.normalize("NFC", "rosé") in collect("imagefolder", root).labels
    (root / "green").rename(root / unicodedata.normalize("NFC", "rosé"))
    with pytest.raises(BundleError, match="the same name 'rosé' in two Unicode forms"):
        collect("imagefolder", root)


def test_a_label_without_usable_images_is_refused(root: Path) -> None:
    for file in (root / "red").iterdir():
        file.rename(file.with_suffix(".jxl"))
    with pytest.raises(BundleError, match=r"no image for 1 label, 'red' among them"):
        collect("imagefolder", root)


def test_a_pipe_with_the_name_of_an_image_is_refused_by_name(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(root / "red" / "pipe.jpg")  # whoever reads it waits for a writer
    options = ["--data.source", "imagefolder", "--data.root", str(root)]
    assert main(["data", "manifest", *options, "--cache", str(tmp_path), "--output", str(tmp_path / "m.csv")]) == 1
    assert "pipe.jpg cannot be read: Not a regular file" in capsys.readouterr().err
