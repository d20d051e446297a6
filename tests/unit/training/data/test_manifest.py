"""Sources, splits and manifests: the same images always fall on the same side, and duplicates on one."""

import os
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from tests.unit.training import synthetic_images
from training.data import manifest as manifests
from training.data.datasets import collect, flowers102
from visionserve.errors import BundleError


def test_the_names_of_the_flowers_are_102_and_in_the_published_order() -> None:
    assert len(set(flowers102.LABELS)) == 102
    assert flowers102.LABELS[0] == "pink primrose"
    assert flowers102.LABELS[53] == "sunflower"
    assert flowers102.LABELS[101] == "blackberry lily"


def test_the_same_files_and_seed_give_the_same_manifest(tmp_path: Path) -> None:
    root = synthetic_images.image_folder(tmp_path / "one")
    other = shutil.copytree(root, tmp_path / "other")
    first, second = (manifests.build(collect("imagefolder", place), "stratified", 1) for place in (root, other))
    assert first.digest == second.digest
    assert manifests.build(collect("imagefolder", root), "stratified", 2).digest != first.digest


def test_twins_are_never_divided(tmp_path: Path) -> None:
    root = synthetic_images.image_folder(tmp_path, per_label=10)
    for number in range(10):
        shutil.copy(root / "red" / f"{number:02d}.png", root / "red" / f"duplicate-{number:02d}.png")
        synthetic_images.image((230, 230, 10), 900 + number).save(root / "red" / f"other-{number:02d}.png")
    for seed in range(5):
        splits = defaultdict(set)
        for row in manifests.build(collect("imagefolder", root), "stratified", seed).rows:
            splits[row.sha256].add(row.split)
        assert all(len(found) == 1 for found in splits.values())


def test_twins_across_given_splits_are_kept_only_where_they_are_measured(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        synthetic_images.image_folder(tmp_path / split, per_label=2)
        for place, label in enumerate(synthetic_images.COLOURS):
            for file in (tmp_path / split / label).iterdir():
                synthetic_images.image(
                    synthetic_images.COLOURS[label], hash(split) % 1000 + 7 * place + int(file.stem)
                ).save(file)
    shutil.copy(tmp_path / "train" / "red" / "00.png", tmp_path / "test" / "red" / "duplicate.png")
    paths = {row.path for row in manifests.build(collect("imagefolder", tmp_path), "given", 1).rows}
    assert "test/red/duplicate.png" in paths
    assert "train/red/00.png" not in paths


def test_a_manifest_survives_being_written_and_read(tmp_path: Path) -> None:
    collection = collect("imagefolder", synthetic_images.image_folder(tmp_path / "data"))
    written = manifests.build(collection, "stratified", 1)
    written.save(tmp_path / "manifest.csv")
    assert manifests.load(tmp_path / "manifest.csv", collection.root, collection.labels) == written


@pytest.mark.parametrize("act", ["change", "remove"])
def test_an_image_that_changed_or_went_stops_the_run(tmp_path: Path, act: str) -> None:
    found = manifests.build(collect("imagefolder", synthetic_images.image_folder(tmp_path)), "stratified", 1)
    found.verify()
    victim = tmp_path / "green" / "03.png"
    synthetic_images.image((0, 0, 0), 1).save(victim) if act == "change" else victim.unlink()
    with pytest.raises(BundleError, match="missing or changed"):
        found.verify()


def test_an_unknown_label_in_a_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("path,label,split,sha256\na.png,purple,train,00\n", encoding="utf-8")
    with pytest.raises(BundleError, match="purple"):
        manifests.load(tmp_path / "manifest.csv", tmp_path, ("red", "green"))


def test_images_that_are_not_on_disk_are_left_out_of_the_flowers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flowers102, "LABELS", ("first", "second"))
    root = synthetic_images.flowers(tmp_path, labels=[2, 1, 1, 2, 1], train=[1, 2], val=[3], test=[4, 5])
    (root / "jpg" / "image_00004.jpg").unlink()
    found = [(p.path, p.label, p.split) for p in collect("flowers102", root).images]
    assert found == [
        ("jpg/image_00001.jpg", "second", "train"),
        ("jpg/image_00002.jpg", "first", "train"),
        ("jpg/image_00003.jpg", "first", "val"),
        ("jpg/image_00005.jpg", "first", "test"),
    ]


@pytest.mark.parametrize(
    ("source", "damage", "message"),
    [
        ("imagefolder", "missing", "does not exist"),
        ("imagefolder", "one label", "two or more labels"),
        ("imagefolder", "empty label", "no image for 1 label, 'red'"),
        ("imagefolder", "few", "needs three or more"),
        ("flowers102", "missing", "does not exist"),
        ("flowers102", "another", "imagelabels.mat is missing"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_in_one_sentence(
    tmp_path: Path, source: str, damage: str, message: str
) -> None:
    root = tmp_path / "data"
    if damage != "missing":
        synthetic_images.image_folder(root, per_label=2 if damage == "few" else 4)
    for label in {"one label": ("red", "green"), "empty label": ("red",)}.get(damage, ()):
        shutil.rmtree(root / label)
    if damage == "empty label":
        (root / "red").mkdir()
    with pytest.raises(BundleError, match=message) as caught:
        manifests.build(collect(source, root), "stratified", 1)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(
    "VISIONSERVE_DATA" not in os.environ, reason="set VISIONSERVE_DATA to a folder that has flowers-102"
)
def test_the_published_split_sizes_of_oxford_102_are_found() -> None:
    collection = collect("flowers102", Path(os.environ["VISIONSERVE_DATA"], "flowers-102"))
    counts = Counter(p.split for p in collection.images)
    assert (counts["train"], counts["val"], len(collection.labels)) == (1020, 1020, 102)
    assert set(Counter(p.label for p in collection.images if p.split == "train").values()) == {10}
