"""Each source in the layout it is published in; what is wrong with a folder is one sentence and exit status 1."""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from tests.unit.training import synthetic_images
from training.__main__ import main
from training.data import manifest as manifests
from training.data import prepare as preparation
from training.data.datasets import collect
from training.fit.run import Run, prepare
from training.recipe import Data
from visionserve.errors import BundleError

DATA = Path(os.environ.get("VISIONSERVE_DATA", "/nowhere"))
real = pytest.mark.skipif(not DATA.is_dir(), reason="set VISIONSERVE_DATA to the folder of the real data sets")


@pytest.mark.parametrize("below", ["", "PetImages"])
def test_cats_and_dogs_are_found_where_the_archive_leaves_them(tmp_path: Path, below: str) -> None:
    root = synthetic_images.pets(tmp_path, per_label=12)
    found = collect("cats-and-dogs", root if below == "" else root / below)
    assert found.labels == ("cat", "dog")
    assert [Path(p.path).name for p in found.images if p.label == "dog"] == [f"{n}.jpg" for n in range(12)]
    assert {Path(path).name for path in found.others} == {"Thumbs.db"}


def test_cats_and_dogs_are_divided_within_each_label(tmp_path: Path) -> None:
    found, _ = preparation.make(Data(source="cats-and-dogs", root=str(synthetic_images.pets(tmp_path, per_label=20))))
    counts = Counter((row.label, row.split) for row in found.rows)
    assert set(counts) == {(label, split) for label in ("cat", "dog") for split in ("train", "val", "test")}
    assert counts["cat", "train"] > 10 < counts["dog", "train"]


def test_folders_of_train_val_and_test_are_kept_as_they_are(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "val", "test")):
        synthetic_images.image_folder(tmp_path / split, per_label=3 - number)
    for file in (tmp_path / "train").rglob("*.png"):
        synthetic_images.image((9, 9, 9), hash(file.as_posix()) % 2**31).save(file)
    (tmp_path / "train" / "red" / "notes.txt").write_text("none of them", encoding="utf-8")
    found = collect("imagefolder", tmp_path)
    assert Counter(p.split for p in found.images) == {"train": 9, "val": 6, "test": 3}
    assert found.labels == ("blue", "green", "red")
    assert found.others == ("train/red/notes.txt",)


def _nothing(_: Path) -> None:
    pass


def _one_label(root: Path) -> None:
    for label in ("green", "red"):
        shutil.rmtree(root / label)


def _empty_label(root: Path) -> None:
    for file in (root / "red").iterdir():
        file.unlink()


def _unreadable(root: Path) -> None:
    (root / "green" / "03.png").write_bytes(b"nonsense")


def _class_0(root: Path) -> None:
    savemat(root / "imagelabels.mat", {"labels": np.array([[1, 0, 2]])})


def _class_103(root: Path) -> None:
    savemat(root / "imagelabels.mat", {"labels": np.array([[1, 103, 2]])})


def _other_mat(root: Path) -> None:
    savemat(root / "imagelabels.mat", {"something": np.array([[1, 2]])})


def _no_mat(root: Path) -> None:
    (root / "imagelabels.mat").write_bytes(b"<html>moved</html>")


BAD = {
    "missing folder": ("imagefolder", shutil.rmtree, "folder {root} does not exist"),
    "one class only": (
        "imagefolder",
        _one_label,
        "{root} needs a folder of images for each of two or more labels",
    ),
    "empty class": ("imagefolder", _empty_label, "{root}: no image for 1 label, 'red' among them"),
    "unreadable image": ("imagefolder", _unreadable, "images cannot be used: {root}/green/03.png (not an image of"),
    "another layout": ("cats-and-dogs", _nothing, "{root} is not a folder of cats and dogs: Cat/ is missing"),
    "no flowers": ("flowers102", _nothing, "{root} is not an Oxford 102 Flowers folder: imagelabels.mat is missing"),
    "label 0": ("flowers102", _class_0, "{root}/imagelabels.mat has the class 0; there are 1 to 102"),
    "label 103": ("flowers102", _class_103, "{root}/imagelabels.mat has the class 103; there are 1 to 102"),
    "other file": ("flowers102", _other_mat, "{root}/imagelabels.mat is not the published file: it holds no labels"),
    "no mat file": ("flowers102", _no_mat, "{root}/imagelabels.mat is not the published file: it holds no labels"),
}


@pytest.mark.parametrize(("source", "spoil", "sentence"), BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("command", ["manifest", "fit"])
def test_bad_input_is_one_sentence_and_exit_status_1(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    source: str,
    spoil: Callable[[Path], None],
    sentence: str,
) -> None:
    root = synthetic_images.image_folder(tmp_path / "data", per_label=4)
    spoil(root)
    words = ["data", "manifest"] if command == "manifest" else ["fit", "--run", str(tmp_path / "run")]
    assert main([*words, "--data.source", source, "--data.root", str(root), "--cache", str(tmp_path / "cache")]) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith(f"python -m training {' '.join(words[:2] if command == 'manifest' else words[:1])}: ")
    assert sentence.format(root=root) in said[-1]
    assert not any("Traceback" in line for line in said)


@contextmanager
def nobody() -> Iterator[None]:
    """Be a user who owns nothing, where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("place", ["", "red", "red/01.png"])
def test_a_place_without_permission_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    root = synthetic_images.image_folder(tmp_path / "data", per_label=4)
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)
    (root / place).chmod(0)
    try:
        with nobody():
            assert main(["data", "manifest", "--data.source", "imagefolder", "--data.root", str(root)]) == 1
    finally:
        (root / place).chmod(0o755)
    assert f"{(root / place).as_posix()} cannot be read: Permission denied" in capsys.readouterr().err


def given(root: Path, manifest: Path) -> Data:
    return Data(source="imagefolder", root=str(root), manifest=str(manifest), seed=2)  # that of the recipe


def test_a_manifest_that_was_written_once_is_used_again_to_the_byte(tmp_path: Path) -> None:
    root = synthetic_images.image_folder(tmp_path / "data")
    first, _ = preparation.make(Data(source="imagefolder", root=str(root), seed=7))
    first.save(tmp_path / "once.csv")
    synthetic_images.image((9, 200, 200), 5000).save(root / "red" / "later.png")  # not in it, so not used
    run = Run(tmp_path / "run")
    assert prepare(synthetic_images.recipe(root, data=given(root, tmp_path / "once.csv")), run, fresh=True) == first
    assert run.manifest.read_bytes() == (tmp_path / "once.csv").read_bytes()


def test_a_run_begins_anew_with_its_own_manifest(tmp_path: Path) -> None:
    root, run = synthetic_images.image_folder(tmp_path / "data"), Run(tmp_path / "run")
    first = prepare(synthetic_images.recipe(root), run, fresh=True)
    assert prepare(synthetic_images.recipe(root, data=given(root, run.manifest)), run, fresh=True) == first


def test_a_manifest_of_some_labels_keeps_their_order(tmp_path: Path) -> None:
    root = synthetic_images.image_folder(tmp_path / "data")
    whole, _ = preparation.make(Data(source="imagefolder", root=str(root)))
    lines = [line for line in whole_text(whole, tmp_path).splitlines(keepends=True) if ",green," not in line]
    (tmp_path / "some.csv").write_text("".join(lines), encoding="utf-8")
    found, _ = preparation.make(given(root, tmp_path / "some.csv"))
    assert found.labels == ("blue", "red")


def whole_text(manifest: manifests.Manifest, folder: Path) -> str:
    manifest.save(folder / "whole.csv")
    return (folder / "whole.csv").read_text(encoding="utf-8")


WRONG = {
    "another image": (",train,", ",train,00", "is missing or changed since the manifest was written"),
    "a label that is not there": (",red,", ",purple,", "has an unknown split or label"),
    "no validation": (",val,", ",train,", "has no val images"),
    "a line cut short": ("red/00.png,red,", "red/00.png,", "line 26 has 3 entries instead of 4"),
    "another file": ("path,label,split,sha256", "a,b", "its first line must be path,label,split,sha256"),
}


@pytest.mark.parametrize(("old", "new", "sentence"), WRONG.values(), ids=WRONG.keys())
def test_a_manifest_that_is_not_of_these_images_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, sentence: str
) -> None:
    root = synthetic_images.image_folder(tmp_path / "data")
    whole, _ = preparation.make(Data(source="imagefolder", root=str(root)))
    spoiled = whole_text(whole, tmp_path).replace(old, new)
    (tmp_path / "spoiled.csv").write_text(spoiled, encoding="utf-8")
    options = ["--data.source", "imagefolder", "--data.root", str(root)]
    assert main(["data", "manifest", *options, "--data.manifest", str(tmp_path / "spoiled.csv")]) == 1
    assert sentence in capsys.readouterr().err


def test_going_on_with_another_manifest_is_refused(tmp_path: Path) -> None:
    root = synthetic_images.image_folder(tmp_path / "data")
    run = Run(tmp_path / "run")
    prepare(synthetic_images.recipe(root), run, fresh=True)
    same = prepare(synthetic_images.recipe(root, data=given(root, run.manifest)), run, fresh=False)
    (tmp_path / "other.csv").write_text(whole_text(same, tmp_path).replace(",train,", ",val,", 1), encoding="utf-8")
    with pytest.raises(BundleError, match=r"another manifest than .*other\.csv.*--resume none"):
        prepare(synthetic_images.recipe(root, data=given(root, tmp_path / "other.csv")), run, fresh=False)


@real
def test_the_published_facts_of_oxford_102_are_found() -> None:
    collection = collect("flowers102", DATA / "flowers-102")
    assert len(collection.labels) == 102
    assert Counter(p.split for p in collection.images) == {"train": 1020, "val": 1020, "test": 5333}
    assert Counter(Counter(p.label for p in collection.images if p.split == "val").values()) == {10: 102}
    splits = {p.path: p.split for p in collection.images}
    by_digest: dict[str, list[str]] = {}
    for path, digest in manifests.digests(collection).items():
        by_digest.setdefault(digest, []).append(path)
    duplicates = [paths for paths in by_digest.values() if len(paths) > 1]
    assert [len(paths) for paths in duplicates] == [2, 2, 2, 2]
    assert sum(splits[a] != splits[b] for a, b in duplicates) == 2


@real
def test_the_published_split_sizes_of_oxford_102_are_in_its_own_file() -> None:
    from scipy.io import loadmat

    ids = loadmat(DATA / "flowers-102" / "setid.mat")
    assert [ids[key].size for key in ("trnid", "valid", "tstid")] == [1020, 1020, 6149]


@real
def test_two_hundred_cats_and_two_hundred_dogs_are_found() -> None:
    found = collect("cats-and-dogs", DATA / "cats-and-dogs")
    assert Counter(p.label for p in found.images) == {"cat": 200, "dog": 200}
    assert found.others == ()
