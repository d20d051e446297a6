from typing import Any

import pytest

from training.recipe import Optimizer, Recipe, Stage, revise
from visionserve.errors import BundleError


def test_a_revised_recipe_differs_in_the_named_entries_only() -> None:
    before = Recipe(stages=(Stage(0.5, 128), Stage(1.0, 176, ("conv1",))))
    after = revise(before, {"optimizer.learning_rate": 0.3, "stages.1.size": 192, "epochs": 4})
    assert after == Recipe(
        epochs=4,
        optimizer=Optimizer(learning_rate=0.3),
        stages=(Stage(0.5, 128), Stage(1.0, 192, ("conv1",))),
    )


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"optimizer.lr": 0.1}, "no entry optimizer.lr"),
        ({"stages.4.size": 99}, "no entry stages.4.size"),
        ({"optimizer": 3}, "no entry optimizer"),
        ({"name.0": "x"}, "no entry name.0"),
        ({"input.size": 1.5}, "input.size.*int"),
        ({"augment.policy": "x"}, "augment.policy"),
        ({"input.crop": 7.0}, "input.crop is a share"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_impossible_revision_is_one_sentence(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(BundleError, match=complaint) as caught:
        revise(Recipe(), changes)
    assert "\n" not in str(caught.value)
