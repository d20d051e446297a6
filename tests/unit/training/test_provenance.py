"""The card states what a model was started from: what was loaded, with its digest, not a default."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.conftest import INPUT
from training.data.manifest import hash_file
from training.provenance import initial_weights
from training.recipe import Recipe
from visionserve.errors import BundleError
from visionserve.model_card import ModelCard


def test_random_and_published_weights_are_named() -> None:
    assert initial_weights(Recipe(init="none")) == "random weights"
    assert initial_weights(Recipe()) == "torchvision's ImageNet weights of resnet18"


def test_a_file_is_named_with_its_digest_and_the_note(tmp_path: Path) -> None:
    file = tmp_path / "own.safetensors"
    file.write_bytes(b"weights")
    stated = initial_weights(Recipe(init=str(file), init_note="trained on leaves"))
    assert stated == f"own.safetensors, SHA-256 {hash_file(file)[:16]} (trained on leaves)"
    with pytest.raises(BundleError, match="does not exist"):
        initial_weights(Recipe(init=str(tmp_path / "none.safetensors")))


def test_a_bundle_is_named_with_what_it_was_started_from(tmp_path: Path) -> None:
    card = ModelCard("leaves", "2.0", "resnet18", ("a", "b"), INPUT)
    (tmp_path / "weights.safetensors").write_bytes(b"weights")
    replace(card, provenance={"initialised_from": "random weights"}).save(tmp_path / "card.json")
    digest = hash_file(tmp_path / "weights.safetensors")[:16]
    stated = initial_weights(Recipe(init=str(tmp_path)))
    assert stated == f"leaves 2.0, weights SHA-256 {digest}, in turn from random weights"
