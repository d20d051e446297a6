"""A second version, on a grown manifest, learns from new images; both are compared on what neither has seen."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.training import synthetic_images
from tests.unit.training.data.test_growth import folder
from tests.unit.training.markers import LIGHTNING
from training.data import manifest as manifests
from training.data.addition import add_folder
from training.data.datasets import collect
from training.evaluation import compare
from training.fit.run import Run, read_manifest
from training.fit.trainer import fit
from training.recipe import Recipe
from visionserve import network
from visionserve.errors import BundleError
from visionserve.model_card import Input, ModelCard

pytestmark = LIGHTNING


def bundle_of(run: Run, path: Path) -> Path:
    """Write the parts of a run's bundle that say what it has seen."""
    manifest = read_manifest(run)
    path.mkdir()
    manifest.save(path / manifests.FILE_NAME)
    card_input = Input(synthetic_images.SIDE, 0.9, network.MEAN, network.STD)
    ModelCard("pets", path.name, "resnet18", manifest.labels, card_input).save(path / "card.json")
    return path


def test_two_versions_of_a_growing_data_set_are_compared_on_images_that_neither_was_trained_on(tmp_path: Path) -> None:
    root = folder(tmp_path / "images", count=20)
    first: Recipe = synthetic_images.recipe(root, epochs=1)
    old_run, new_run = Run(tmp_path / "1.0"), Run(tmp_path / "1.1")
    fit(first, old_run)

    folder(root, count=40, first=100)
    old_data = replace(first.data, manifest=str(old_run.manifest))
    grown = add_folder(old_data, "divide", "near", tmp_path / "cache").manifest
    grown.save(tmp_path / "grown.csv")
    second = replace(first, data=replace(first.data, manifest=str(tmp_path / "grown.csv")))
    with pytest.raises(BundleError, match="was begun with another manifest"):
        fit(second, old_run, resume="auto")
    fit(second, new_run)

    old, new = read_manifest(old_run), read_manifest(new_run)
    assert new == replace(grown, root=new.root)
    assert set(old.rows) <= set(new.rows)
    assert len(new.part("train")) > len(old.part("train"))

    bundles = [bundle_of(run, tmp_path / f"bundle-{run.folder.name}") for run in (old_run, new_run)]
    images = compare.images_of(bundles, root)
    trained = {row.sha256 for manifest in (old, new) for row in manifest.rows if row.split != "test"}
    assert {row.path for row in images.rows["test"]} == {new.rows[index].path for index in new.part("test")}
    assert not trained & {row.sha256 for row in images.rows["test"]}
    assert collect("imagefolder", root).labels == new.labels
