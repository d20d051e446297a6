"""Provenance: what a card says of a model's origin: its images, its recipe and what it was started from.

The start is stated from the loaded weights and not from a recipe's default.
"""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from training import recipe as recipes
from training.data.datasets import SPLITS
from training.data.manifest import Manifest, hash_file
from training.recipe import Recipe
from visionserve.engines import WEIGHTS
from visionserve.errors import BundleError
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import ModelCard

_DIGITS = 16  # of a SHA-256
NOT_STATED = ("", "not stated")
_log = logging.getLogger(__name__)


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


def provenance(
    recipe: Recipe, first: Manifest, further: Mapping[str, Manifest], facts: dict[str, Any]
) -> dict[str, Any]:
    """Return what the card says of the model's origin; what nobody stated is left out.

    Args:
        first: the images of the first source; ``further`` those of others by name.
        facts: of the run (training.fit.run).
    """
    notes = {
        "trained_on": recipe.data_note,
        "initialised_from": facts.get("initialised_from", recipe.init_note),
        "licence": recipe.licence,
    }
    if recipe.licence in NOT_STATED:
        _log.warning("the card states no licence: give one with --licence if users may need to know")
    return {name: note for name, note in notes.items() if note not in NOT_STATED} | {
        **_baseline(facts),
        "recipe": _public(recipe),
        **_counts(first),
        **({"further": {name: _counts(manifest) for name, manifest in further.items()}} if further else {}),
        "date": datetime.now(UTC).date().isoformat(),
        "train_your_own": "make train RECIPE=training/recipes/flowers102.yaml, or any folder of class folders: "
        "python -m training all --data.source imagefolder --data.root FOLDER --name NAME",
    }


def _baseline(facts: dict[str, Any]) -> dict[str, Any]:
    """Return what the run says of its linear probe and of the epoch that was best on validation, if it had a probe."""
    names = (
        "val_accuracy",
        "epoch",
        "epoch_share",
        "keeps",
        "probe_val_accuracy",
        "probe_test_right",
        "probe_test_images",
    )
    return {"baseline": {name: facts.get(name) for name in names}} if "probe_val_accuracy" in facts else {}


def _counts(manifest: Manifest) -> dict[str, Any]:
    groups = {split: {row.group for row in manifest.rows if row.split == split and row.group} for split in SPLITS}
    counts: dict[str, Any] = {
        "manifest_sha256": manifest.digest,
        "photographs": {split: len(manifest.part(split)) for split in SPLITS},
    }
    return counts | ({"groups": {split: len(names) for split, names in groups.items()}} if any(groups.values()) else {})


def _public(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe without paths, servers and devices: nothing that does not change the result."""
    content = recipes.plain(recipe)
    content["data"].pop("roots")
    for section in (content["data"], *content["data"]["more"]):
        section.pop("root")
        section.pop("manifest")
    for of_this_machine in ("machine", "tracking"):
        content.pop(of_this_machine)
    for stated_elsewhere in ("init_note", "data_note", "licence"):
        content.pop(stated_elsewhere)
    content["teacher"]["bundle"] = [folder.name for folder in recipe.teacher.folders] or None
    return content | {"init": Path(recipe.init).name}
