"""A manifest grows: its own rows stay, copies are kept out, and every image that does not join has a reason."""

import csv
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.__main__ import main
from training.data import manifest as manifests
from training.data import review_list, splits
from training.data.addition import add_folder, add_reviewed
from training.data.datasets import ImageFile, collect
from training.data.growth import grow
from training.data.manifest import Manifest, hash_file
from training.data.review_list import Entry
from training.recipe import Data
from visionserve.errors import BundleError


def scene(seed: int) -> Image.Image:
    """Draw an image that looks like no other: coarse random shades."""
    shades = np.random.default_rng(seed).integers(0, 255, (8, 8, 3)).astype(np.uint8)
    return Image.fromarray(shades).resize((64, 64), Image.Resampling.BICUBIC)


def folder(root: Path, labels: tuple[str, ...] = ("cat", "dog"), count: int = 12, first: int = 0) -> Path:
    for number, label in enumerate(labels):
        (root / label).mkdir(parents=True, exist_ok=True)
        for index in range(first, first + count):
            scene(1000 * number + index).save(root / label / f"{index:03d}.png")
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return folder(tmp_path / "images")


@pytest.fixture
def old(root: Path, tmp_path: Path) -> Path:
    path = tmp_path / "old.csv"
    manifests.build(collect("imagefolder", root), "stratified", 1).save(path)
    return path


def data(root: Path, old: Path, **changes: object) -> Data:
    return Data(source="imagefolder", root=str(root), manifest=str(old), **changes)  # type: ignore[arg-type]


def loaded(root: Path, path: Path) -> Manifest:
    collection = collect("imagefolder", root)
    return manifests.load(path, collection.root, collection.labels)


def test_every_old_row_stays_and_new_images_are_divided_by_their_own_numbers(root: Path, old: Path) -> None:
    folder(root, count=150, first=100)
    grown = add_folder(data(root, old), "divide", "near")
    before = loaded(root, old)
    assert set(before.rows) <= set(grown.manifest.rows)
    assert len(grown.added) == len(grown.manifest.rows) - len(before.rows) == 300
    shares = Counter(row.split for row in grown.added)
    assert 15 <= shares["test"] <= 45  # 30 are expected, give or take 5
    assert 15 <= shares["val"] <= 45
    again = add_folder(data(root, old), "divide", "near")
    assert again.manifest.digest == grown.manifest.digest


def test_the_division_is_that_of_a_manifest_of_all_images(root: Path, old: Path) -> None:
    folder(root, count=60, first=100)
    whole = {row.path: row.split for row in manifests.build(collect("imagefolder", root), "stratified", 1).rows}
    grown = add_folder(data(root, old), "divide", "near")
    assert {row.path: row.split for row in grown.added} == {row.path: whole[row.path] for row in grown.added}


def test_a_new_label_gets_images_of_every_split(root: Path, old: Path) -> None:
    (root / "bird").mkdir()
    for index in range(5):
        scene(5000 + index).save(root / "bird" / f"{index}.png")
    grown = add_folder(data(root, old), "divide", "identical")
    assert grown.manifest.labels == ("bird", "cat", "dog")
    assert Counter(row.split for row in grown.added if row.label == "bird").keys() == {"train", "val", "test"}
    with pytest.raises(BundleError, match="'bird' is not a label of the manifest"):
        add_folder(data(root, old), "train", "near")


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("copy", ["identical", "smaller"])
def test_copies_of_images_of_any_split_are_left_out_with_the_reason(
    root: Path, old: Path, split: str, copy: str
) -> None:
    row = next(row for row in loaded(root, old).rows if row.split == split and row.label == "cat")
    target = root / "dog" / "new.png"
    if copy == "identical":
        shutil.copy(root / row.path, target)
    else:
        Image.open(root / row.path).resize((40, 40)).save(target)
    grown = add_folder(data(root, old), "divide", "near")
    assert grown.added == ()
    [left_out] = grown.left_out
    assert left_out.path == "dog/new.png"
    assert row.path in left_out.reason
    assert "whose label is cat" in left_out.reason
    if copy == "smaller":  # on demand such an image is taken: the images of a fixed camera all look alike
        assert len(add_folder(data(root, old), "train", "identical").added) == 1


def test_one_new_file_under_two_labels_joins_under_none(root: Path, old: Path) -> None:
    for label in ("cat", "dog"):
        scene(901).save(root / label / "new.png")
    scene(902).save(root / "cat" / "a.png")
    scene(902).save(root / "cat" / "b.png")
    grown = add_folder(data(root, old), "train", "near")
    assert [row.path for row in grown.added] == ["cat/a.png"]
    assert {file.path: file.reason for file in grown.left_out} == {
        "cat/new.png": "the same file under several labels: keep it under the right one",
        "dog/new.png": "the same file under several labels: keep it under the right one",
        "cat/b.png": "the same file as cat/a.png",
    }


def test_new_images_that_look_the_same_are_on_one_side(root: Path, old: Path) -> None:
    collection, before = collect("imagefolder", root), loaded(root, old)
    images = [ImageFile(f"cat/new-{number}.png", "cat") for number in range(200)]
    digests = {image.path: f"digest of {image.path}" for image in images}
    pairs = [(images[n].path, images[n + 1].path) for n in range(0, 200, 2)]
    splits = {row.path: row.split for row in grow(before, collection, images, digests, pairs).added}
    assert len(splits) == 200
    assert all(splits[one] == splits[other] for one, other in pairs)


def test_a_corrupt_new_image_stops_the_command_or_is_left_out(root: Path, old: Path) -> None:
    (root / "cat" / "new.png").write_bytes(b"nonsense")
    scene(77).save(root / "cat" / "good.png")
    with pytest.raises(BundleError, match=r"cannot be used: \S+new\.png \(not an image"):
        add_folder(data(root, old), "train", "near")
    grown = add_folder(data(root, old, corrupt="skip"), "train", "near")
    assert [row.path for row in grown.added] == ["cat/good.png"]
    assert [file.path for file in grown.left_out] == ["cat/new.png"]


def test_an_image_of_the_manifest_that_went_stops_the_command(root: Path, old: Path) -> None:
    (root / "cat" / "003.png").unlink()
    with pytest.raises(BundleError, match="the manifest cannot grow"):
        add_folder(data(root, old), "divide", "near")


def test_a_folder_with_splits_of_its_own_keeps_them(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "val", "test")):
        folder(tmp_path / "images" / split, count=4, first=100 * number)
    root, old = tmp_path / "images", tmp_path / "old.csv"
    manifests.build(collect("imagefolder", root), "given", 1).save(old)
    scene(555).save(root / "val" / "dog" / "new.png")
    [row] = add_folder(data(root, old), "given", "near").added
    assert (row.path, row.split) == ("val/dog/new.png", "val")


def review(tmp_path: Path, *decisions: tuple[int, str, str]) -> Path:
    """Write a list of new images: seed, use and label of each."""
    entries = []
    for seed, use, label in decisions:
        file = tmp_path / "review" / "images" / f"{seed}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        scene(seed).save(file)
        entries.append(Entry(f"images/{seed}.png", use, label, "cat", "0.9", "feedback", "r", hash_file(file)))
    review_list.write(tmp_path / "review", entries)
    return tmp_path / "review" / "review.csv"


def test_accepted_images_are_copied_to_their_label_and_learned_from(root: Path, old: Path, tmp_path: Path) -> None:
    path = review(tmp_path, (501, "yes", "dog"), (502, "no", "dog"), (503, "", "cat"), (3, "yes", "cat"))
    (tmp_path / "review" / "images" / "gone.png").unlink(missing_ok=True)
    grown = add_reviewed(data(root, old), path, [], "train", "near")
    [row] = grown.added
    digest = hash_file(tmp_path / "review" / "images" / "501.png")
    assert (row.path, row.label, row.split, row.sha256) == (f"dog/{digest}.png", "dog", "train", digest)
    assert hash_file(root / row.path) == digest
    reasons = {Path(file.path).stem: file.reason for file in grown.left_out}
    assert reasons["502"] == "use is no"
    assert reasons["503"] == "not reviewed: use is empty"
    assert "cat/003.png" in reasons["3"]
    assert len(list(root.rglob("*.png"))) == 25  # nothing else was copied


def test_an_unknown_label_is_refused_with_the_nearest_one(root: Path, old: Path, tmp_path: Path) -> None:
    path = review(tmp_path, (501, "yes", "dgo"))
    with pytest.raises(BundleError, match="no label 'dgo' \\(is it 'dog'"):
        add_reviewed(data(root, old), path, [], "train", "near")


def test_a_new_label_is_added_on_demand(root: Path, old: Path, tmp_path: Path) -> None:
    path = review(tmp_path, *((seed, "yes", "bird") for seed in range(501, 507)))
    grown = add_reviewed(data(root, old), path, ["bird"], "divide", "near")
    assert {row.split for row in grown.added} == {"train", "val", "test"}
    assert grown.manifest.labels == collect("imagefolder", root).labels == ("bird", "cat", "dog")


@pytest.mark.parametrize("label", ["../evil", "a/b", "a\\b", ".hidden", "train"])
def test_a_new_label_that_is_no_folders_name_is_refused(root: Path, old: Path, tmp_path: Path, label: str) -> None:
    path = review(tmp_path, (501, "yes", label))
    with pytest.raises(BundleError, match="cannot be the name of a folder"):
        add_reviewed(data(root, old), path, [label], "divide", "near")


def test_an_image_that_changed_since_it_was_listed_is_left_out(root: Path, old: Path, tmp_path: Path) -> None:
    path = review(tmp_path, (501, "yes", "dog"), (502, "yes", "dog"))
    scene(600).save(tmp_path / "review" / "images" / "501.png")
    (tmp_path / "review" / "images" / "502.png").unlink()
    reasons = [file.reason for file in add_reviewed(data(root, old), path, [], "train", "near").left_out]
    assert reasons == ["changed since it was listed", "missing"]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_list_is_read_as_spreadsheets_save_it(tmp_path: Path, separator: str) -> None:
    lines = [("file", "use", "label", "mine"), ("images/1.png", " Yes ", "dog", ""), ("images/2.png", "X", "cat", "?")]
    text = "\r\n".join(separator.join(line) for line in lines)
    (tmp_path / "review.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    entries = review_list.read(tmp_path / "review.csv")
    assert [(entry.file, entry.accepted, entry.label) for entry in entries] == [
        ("images/1.png", True, "dog"),
        ("images/2.png", True, "cat"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("../1.png,yes,dog", "not a file below"),
        ("/etc/passwd,yes,dog", "not a file below"),
        (",yes,dog", "not a file below"),
        ("1.png,maybe,dog", "line 2: use is yes, no or empty, not 'maybe'"),
        ("1.png,yes,", "has no label"),
    ],
)
def test_a_wrong_line_of_a_list_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "review.csv").write_text(f"file,use,label\n{line}\n")
    with pytest.raises(BundleError, match=message):
        review_list.read(tmp_path / "review.csv")


def test_a_list_without_its_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "review.csv").write_text("path,label\n1.png,dog\n")
    with pytest.raises(BundleError, match="no column file"):
        review_list.read(tmp_path / "review.csv")


def test_the_command_says_how_the_splits_grew_and_what_is_next(
    root: Path, old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data.source", "imagefolder", "--data.root", str(root), "--data.manifest", str(old)]
    options += ["--output", str(tmp_path / "new" / "grown.csv"), "--cache", str(tmp_path / "cache")]
    assert main(["data", "add", *options]) == 1
    assert "no image was added" in capsys.readouterr().err
    shutil.copy(root / "cat" / "001.png", root / "cat" / "copy.png")
    path = review(tmp_path, (501, "yes", "dog"), (502, "", ""))
    assert main(["data", "add", *options, "--reviewed", str(path)]) == 0
    output = capsys.readouterr().out
    assert "1 image added: train" in output
    assert "  dog: train + 1" in output
    assert "images/502.png: not reviewed" in output
    assert "--data.manifest" in output
    with (tmp_path / "new" / manifests.LEFT_OUT).open() as file:
        assert [row["path"] for row in csv.DictReader(file)] == ["images/502.png"]
    assert len(loaded(root, tmp_path / "new" / "grown.csv").rows) == 25


@pytest.mark.parametrize("separator", [",", ";"])
def test_accepted_images_become_lines_of_a_labels_file(tmp_path: Path, separator: str) -> None:
    root = folder(tmp_path / "images")
    lines = [("file", "label", "note")]
    lines += [(p.relative_to(root).as_posix(), p.parent.name, "") for p in sorted(root.rglob("*.png"))]
    (root / "labels.csv").write_text("\n".join(separator.join(line) for line in lines))  # no newline at the end
    settings = Data(source="labels-csv", root=str(root), manifest=str(tmp_path / "old.csv"))
    manifests.build(collect("labels-csv", root, csv=settings.csv), "stratified", 1).save(tmp_path / "old.csv")
    path = review(tmp_path, (501, "yes", "dog"), (502, "no", "dog"))
    [row] = add_reviewed(settings, path, [], "train", "near").added
    assert (row.label, row.split) == ("dog", "train")
    again = collect("labels-csv", root, csv=settings.csv)
    assert [image.label for image in again.images if image.path == row.path] == ["dog"]
    assert len(again.images) == 25


def test_images_of_a_group_stay_on_its_side_and_new_groups_are_divided_by_name(root: Path) -> None:
    def images(first: int, groups: int, each: int) -> list[ImageFile]:
        return [
            ImageFile(f"cat/{group}-{first + index}.png", "cat", None, (), f"site {group}")
            for group in range(groups)
            for index in range(each)
        ]

    collection = collect("imagefolder", root)
    before = images(0, 40, 2)
    digests = {image.path: f"digest of {image.path}" for image in [*before, *images(50, 80, 2)]}
    sides = splits.by_group(before, digests, 1)
    rows = tuple(manifests.Row(i.path, i.label, sides[i.path], digests[i.path], (), i.group) for i in before)
    old = Manifest(collection.root, ("cat", "dog"), rows)
    grown = grow(old, collection, images(50, 80, 2), digests, [])
    by_group: dict[str, set[str]] = {}
    for row in grown.manifest.rows:
        by_group.setdefault(row.group, set()).add(row.split)
    assert len(by_group) == 80
    assert all(len(split) == 1 for split in by_group.values())
    assert {row.split for row in grown.added} == {"train", "val", "test"}
