"""Images that do not decode: named, or left out and listed, and tried only once."""

import csv
from pathlib import Path

import pytest

from tests.unit.training import synthetic_images
from training.__main__ import main
from training.data import corrupt_files, prepare
from training.data import manifest as manifests
from training.data.datasets import collect
from training.recipe import Data
from visionserve.errors import BundleError


def pets(root: Path, **settings: object) -> Data:
    return Data(source="cats-and-dogs", root=str(root), **settings)  # type: ignore[arg-type]


def test_the_first_corrupt_images_are_named_with_the_option_that_leaves_them_out(tmp_path: Path) -> None:
    wrong = synthetic_images.damage(synthetic_images.pets(tmp_path) / "PetImages" / "Cat")
    with pytest.raises(BundleError) as caught:
        prepare.make(pets(tmp_path))
    named = ", ".join(f"{tmp_path}/PetImages/Cat/{name} ({reason})" for name, reason in sorted(wrong.items()))
    assert str(caught.value) == (
        f"3 of 20 images cannot be used: {named}. "
        "Repair or remove them, or leave such files out with --data.corrupt skip"
    )


def test_of_many_corrupt_images_three_are_named(tmp_path: Path) -> None:
    for file in (synthetic_images.pets(tmp_path) / "PetImages" / "Dog").glob("*.jpg"):
        file.write_bytes(b"")
    with pytest.raises(BundleError, match=r"^10 of 20 images cannot be used: (\S+ \(empty\),? ){3}and 7 more\. Repair"):
        prepare.make(pets(tmp_path))


def test_corrupt_images_are_left_out_and_listed(tmp_path: Path) -> None:
    wrong = synthetic_images.damage(synthetic_images.pets(tmp_path / "data") / "PetImages" / "Cat")
    output = tmp_path / "out" / "manifest.csv"
    options = ["--data.source", "cats-and-dogs", "--data.root", str(tmp_path / "data"), "--data.corrupt", "skip"]
    assert main(["data", "manifest", *options, "--cache", str(tmp_path), "--output", str(output)]) == 0
    with (tmp_path / "out" / "corrupt.csv").open(encoding="utf-8") as file:
        listed = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    assert listed == {f"PetImages/Cat/{name}": reason for name, reason in wrong.items()} | {
        f"PetImages/{kind}/Thumbs.db": "hidden" for kind in ("Cat", "Dog")
    }
    rows = manifests.load(output, tmp_path / "data", ("cat", "dog")).rows
    assert len(rows) == 17
    assert not {row.path for row in rows} & set(listed)


def test_a_label_of_which_nothing_is_left_is_refused(tmp_path: Path) -> None:
    for file in (synthetic_images.pets(tmp_path) / "PetImages" / "Dog").glob("*.jpg"):
        file.write_bytes(b"")
    with pytest.raises(BundleError, match="no image for 1 label, 'dog'"):
        prepare.make(pets(tmp_path, corrupt="skip"))


def test_an_image_is_tried_once_and_again_when_its_bytes_change(tmp_path: Path) -> None:
    synthetic_images.damage(synthetic_images.pets(tmp_path / "data") / "PetImages" / "Cat")
    collection = collect("cats-and-dogs", tmp_path / "data")
    digests = manifests.digests(collection)
    first = corrupt_files.scan(collection, digests, tmp_path)
    lines = next(tmp_path.glob("decoded-*.csv")).read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(digests)
    for path in digests:
        (tmp_path / "data" / path).unlink()  # nothing is left to try
    assert corrupt_files.scan(collection, digests, tmp_path).corrupt == first.corrupt
    with pytest.raises(BundleError, match="cannot be read"):
        corrupt_files.scan(collection, dict.fromkeys(digests, "other bytes"), tmp_path)
