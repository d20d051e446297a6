"""Folders as tools and systems leave them: splits by any usual name, hidden files, names that look the same."""

import os
import shutil
import unicodedata
from pathlib import Path

import pytest

from tests.unit.training import synthetic_images
from training.__main__ import main
from training.data import corrupt_files, prepare
from training.data.datasets import collect
from training.recipe import Data
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


@pytest.mark.parametrize(
    "names",
    [
        ("train", "valid"),
        ("train", "validation", "test"),
        ("Training", "val", "Testing"),
        ("trainset", "valset", "testset"),
        ("train_images", "val-images", "Test Data"),
        ("train2017", "val2017"),
    ],
)
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


def test_splits_inside_the_labels_are_refused_by_name(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        split_folders(tmp_path / label, "train", "test")
    with pytest.raises(BundleError, match=r"cat is a label with folders for splits inside \(test and train\)"):
        collect("imagefolder", tmp_path)


def test_a_division_that_ignores_the_folder_s_own_splits_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = split_folders(tmp_path, "train", "valid", "test")
    prepare.make(Data(source="imagefolder", root=str(root), split="stratified"))
    assert (
        "has a split of its own (train 12, val 12, test 12), which --data.split stratified does not use" in caplog.text
    )
    assert "--data.split given keeps it" in caplog.text
    caplog.clear()
    prepare.make(Data(source="imagefolder", root=str(root), split="given"))
    assert "split of its own" not in caplog.text


@pytest.mark.parametrize(("link", "target"), [("red/again", "red"), ("red/up", "."), ("red/blue", "blue")])
def test_a_link_to_a_folder_that_it_lies_in_is_refused_and_not_followed(root: Path, link: str, target: str) -> None:
    (root / link).symlink_to(root / target)
    if target == "blue":
        (root / "blue" / "red").symlink_to(root / "red")
    with pytest.raises(BundleError, match="in which it lies itself: remove it"):
        collect("imagefolder", root)


@pytest.mark.parametrize("link", ["yellow", "red/lost.png", "red"])
def test_a_link_to_nothing_is_refused_by_name(root: Path, link: str) -> None:
    if link == "red":
        shutil.rmtree(root / "red")
    (root / link).symlink_to(root / "nowhere")
    with pytest.raises(BundleError, match=rf"{link} is a link to .*nowhere, which is not there"):
        collect("imagefolder", root)


def test_links_to_other_folders_are_followed_and_those_in_hidden_folders_are_not(root: Path, tmp_path: Path) -> None:
    (root / "red").rename(tmp_path / "elsewhere")
    (root / "red").symlink_to(tmp_path / "elsewhere")
    for hidden in (root / ".git", root / "blue" / ".git"):
        hidden.mkdir()
        (hidden / "lost").symlink_to("nowhere")
        (hidden / "again").symlink_to(hidden)
    found = collect("imagefolder", root)
    assert sum(image.label == "red" for image in found.images) == 12
    assert found.others == (".git/lost", "blue/.git/lost")


@pytest.mark.parametrize("name", [b"line\nbreak", b"ta\tb", b"caf\xe9", b"bell\x07"])
def test_a_label_that_cannot_be_shown_is_refused(root: Path, name: bytes) -> None:
    (root / "red").rename(root / os.fsdecode(name))
    with pytest.raises(BundleError, match="control character or bytes that are not UTF-8: rename it"):
        collect("imagefolder", root)


def test_file_names_of_another_encoding_are_refused_and_where_nothing_is_used_listed(
    root: Path, tmp_path: Path
) -> None:
    (root / os.fsdecode(b"caf\xe9.txt")).touch()
    corrupt_files.save(prepare.make(Data(source="imagefolder", root=str(root)))[1], tmp_path / "left-out.csv")
    assert "caf\\udce9.txt,not an image by its name" in (tmp_path / "left-out.csv").read_text(encoding="utf-8")
    (root / "red" / "00.png").rename(root / "red" / os.fsdecode(b"caf\xe9.png"))
    with pytest.raises(BundleError, match=r"the name of the file 'red/caf.udce9\.png' is not in UTF-8: rename it"):
        collect("imagefolder", root)


def test_the_summary_names_labels_of_one_name_and_one_image_under_two_labels(root: Path) -> None:
    data = Data(source="imagefolder", root=str(root))
    assert len(prepare.summary(*prepare.make(data))) == 1
    (root / "green").rename(root / "Red")
    shutil.copy(root / "red" / "00.png", root / "blue" / "copy.png")
    printed = prepare.summary(*prepare.make(data))
    assert "'Red' and 'red' differ in case only and are learnt as 2 labels: merge them if they are one" in printed
    assert (
        "the same image under several labels, 1 image: blue/copy.png (blue) and red/00.png (red). Remove the wrong one"
        in printed
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything: run the tests as an ordinary user")
@pytest.mark.parametrize("name", ["red", "red/00.png"])
def test_what_may_not_be_read_is_named(root: Path, name: str) -> None:
    (root / name).chmod(0)
    try:
        with pytest.raises(BundleError, match=rf"{name} cannot be read: Permission denied"):
            prepare.make(Data(source="imagefolder", root=str(root)))
    finally:
        (root / name).chmod(0o700)
