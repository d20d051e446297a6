"""Images of other origin beside the test split: any folder or labels.csv, several right labels, intervals by group."""

from pathlib import Path

import numpy as np
import pytest

from tests.unit.training import synthetic_images
from training.data import manifest as manifests
from training.evaluation import intervals
from training.evaluation.evaluate import Predictions
from training.evaluation.report import external
from visionserve.errors import BundleError

LABELS = ("blue", "green", "red")


def test_class_folders_and_csv_files_are_read_alike(tmp_path: Path) -> None:
    folders = external.read("mine", synthetic_images.image_folder(tmp_path / "colours", 4), LABELS)
    assert len(folders.files) == 12
    assert sorted(map(min, folders.accepted)) == [0] * 4 + [1] * 4 + [2] * 4
    root, count = synthetic_images.labelled_folder(tmp_path / "web", groups=6)
    for path in (root, root / "labels.csv"):
        listed = external.read("web", path, LABELS)
        assert len(listed.files) == count
        assert {len(right) for right in listed.accepted} == {1, 2}
        assert len(set(listed.groups)) == 6


def test_images_of_no_label_of_the_model_are_refused(tmp_path: Path) -> None:
    root = synthetic_images.image_folder(tmp_path / "colours", 2)
    with pytest.raises(BundleError, match=r"no image shows a label of the model"):
        external.read("mine", root, ("cat", "dog"))


def test_images_of_other_labels_are_left_out_and_said(tmp_path: Path) -> None:
    folders = external.read("mine", synthetic_images.image_folder(tmp_path / "colours", 2), ("blue", "green", "pink"))
    root, _ = synthetic_images.labelled_folder(tmp_path / "web", groups=6)
    listed = external.read("web", root, ("blue", "green", "pink"))
    for entry in (folders, listed):
        assert "images of labels that the model does not have (red)" in entry.left_out


def test_any_accepted_label_counts_as_right() -> None:
    logits = np.array([[3.0, 1, 0], [0, 3, 1], [0, 1, 3], [3, 1, 0]])
    right = (frozenset({0}), frozenset({0, 1}), frozenset({1}), frozenset({0}))
    entry = external.Labelled("web", (Path("a"),) * 4, right, ("", "", "", ""))
    row = external.measure(entry, Predictions(logits, np.zeros(4)), 1.0)
    assert row["top1"] == 0.75
    assert row["top5"] == 1.0
    assert "groups" not in row


def test_the_interval_of_groups_covers_a_new_website_as_often_as_it_says() -> None:
    """Images of a website are right or wrong together: Wilson's interval would be far too narrow."""
    rng, covered, rounds = np.random.default_rng(0), 0, 200
    groups = np.repeat(np.arange(40), 6).astype(str)
    for _ in range(rounds):
        right = rng.random(240) < np.repeat(rng.beta(4, 1, 40), 6)
        low, high = intervals.share(right, groups.tolist())
        covered += low <= 0.8 <= high
    assert covered / rounds > 0.92


def test_a_source_without_its_folder_and_a_folder_without_its_source_are_named(tmp_path: Path) -> None:
    manifests.Manifest(tmp_path, LABELS, ()).save(manifests.further_file(tmp_path, "web"))
    with pytest.raises(BundleError, match=r"was trained on web too: say where its images are with --more web=DIR"):
        manifests.load_further(tmp_path, LABELS, {})
    with pytest.raises(BundleError, match=r"has no source 'wild' but web"):
        manifests.load_further(tmp_path, LABELS, {"web": tmp_path, "wild": tmp_path})
    assert set(manifests.load_further(tmp_path, LABELS, {"web": tmp_path})) == {"web"}


def test_images_that_the_model_has_learnt_from_are_counted_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / name for name in ("a.jpg", "b.jpg", "gone.jpg")]
    for file in files[:2]:
        file.write_text(file.name)
    monkeypatch.setattr(manifests, "seen_by", lambda _: {manifests.hash_file(files[0]): "train"})
    assert manifests.seen_among(tmp_path, files) == 0  # nothing is known without a manifest
    (tmp_path / manifests.FILE_NAME).touch()
    assert manifests.seen_among(tmp_path, files) == 1
    entry = external.Labelled("mine", tuple(files), (frozenset({0}),) * 3, ("",) * 3)
    (sentence,) = external._seen(tmp_path, [entry])
    assert sentence.startswith("**1 of the 3 images of mine are among those that the model was trained or chosen on")
