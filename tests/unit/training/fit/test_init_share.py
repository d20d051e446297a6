"""`init_share`: the weights that are kept are averaged with those of the start."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.unit.training.markers import LIGHTNING
from training.fit.selection import averaged
from training.networks import load_network
from training.recipe import Recipe
from visionserve.errors import BundleError

pytestmark = LIGHTNING
BUNDLE = Path(__file__).parents[4] / "model_store" / "flowers"


def test_each_weight_lies_between_the_start_and_the_trained_one() -> None:
    start = load_network(BUNDLE).state_dict()
    trained = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in start.items()}
    kept = averaged(trained, Recipe(init=str(BUNDLE), init_share=0.25))
    for name, tensor in kept.items():
        expected = start[name] + 0.75 if tensor.is_floating_point() else start[name]
        assert torch.allclose(tensor, expected, atol=1e-5), name
    assert averaged(trained, Recipe(init=str(BUNDLE))) is trained


def test_a_start_without_the_same_head_is_refused() -> None:
    with pytest.raises(BundleError, match=r"init_share needs a bundle as init, not torchvision"):
        averaged({}, Recipe(init="torchvision", init_share=0.5))
    with pytest.raises(BundleError, match=r"init_share is at least 0 and below 1, not 1"):
        replace(Recipe(), init_share=1.0)
