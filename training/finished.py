"""What a run may learn from: a bundle, or the folder of a finished run, which has no card yet."""

import json
from pathlib import Path

from torch import nn

from training import recipe as recipes
from visionserve import network
from visionserve.engines import WEIGHTS
from visionserve.errors import BundleError
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import Input, ModelCard

RECIPE, FACTS = "recipe.yaml", "run.json"  # as in training.fit.run, which imports this


def card_of(folder: Path) -> ModelCard:
    """Return the card of a bundle, or of a run that ended, from its recipe and its facts.

    Raises:
        BundleError: the folder is neither, or the run has not ended.
    """
    if (folder / CARD).is_file() or not (folder / RECIPE).is_file():
        return ModelCard.load(folder / CARD)
    if not (folder / WEIGHTS).is_file():
        raise BundleError(f"{folder} is a run that has not ended: the same `python -m training fit` goes on with it")
    recipe = recipes.load(folder / RECIPE)
    try:
        labels = tuple(json.loads((folder / FACTS).read_text(encoding="utf-8"))["labels"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise BundleError(f"{folder} is not the folder of a run: {error}") from error
    seen = Input(recipe.input.size, recipe.input.crop, network.MEAN, network.STD)
    return ModelCard(recipe.name, recipe.version, recipe.architecture, labels, seen)


def load(folder: Path) -> nn.Module:
    """Return the fp32 network of a bundle or of a run that ended, in evaluation mode; raises what `card_of` raises."""
    card = card_of(folder)
    return network.load(card.architecture, len(card.labels), folder / WEIGHTS)
