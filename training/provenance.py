"""Provenance: what a model was started from, stated from the loaded weights and not from a recipe's default."""

from pathlib import Path

from training.data.manifest import hash_file
from training.recipe import Recipe
from visionserve.engines import WEIGHTS
from visionserve.errors import BundleError
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import ModelCard

_DIGITS = 16  # of a SHA-256
NOT_STATED = ("", "not stated")


def initial_weights(recipe: Recipe) -> str:
    """Return a sentence part for the card: which weights a run starts from, with the digest of a file.

    The recipe's ``init_note`` is added in brackets: what the file itself cannot say.
    """
    note = f" ({recipe.init_note})" if recipe.init_note not in NOT_STATED else ""
    if recipe.init == "none":
        return f"random weights{note}"
    if recipe.init == "torchvision":
        return f"torchvision's ImageNet weights of {recipe.architecture}{note}"
    path = Path(recipe.init)
    if path.is_dir():
        return _bundle(path) + note
    if not path.is_file():
        raise BundleError(
            f"init: file {path} does not exist; init is 'torchvision', 'none', a bundle or a .safetensors file"
        )
    return f"{path.name}, SHA-256 {hash_file(path)[:_DIGITS]}{note}"


def _bundle(folder: Path) -> str:
    digest = hash_file(folder / WEIGHTS)[:_DIGITS]
    try:
        card = ModelCard.load(folder / CARD)
    except BundleError:
        return f"the bundle {folder.name}, weights SHA-256 {digest}"
    earlier = card.provenance.get("initialised_from")
    return f"{card.name} {card.version}, weights SHA-256 {digest}" + (f", in turn from {earlier}" if earlier else "")
