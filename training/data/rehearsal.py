"""A handful of a recipe's photographs, to try everything in seconds: none of the others is opened."""

from pathlib import Path

from training.data.datasets import collect
from training.data.manifest import Manifest, Row, hash_file
from training.recipe import Recipe
from visionserve.errors import BundleError


def handful(recipe: Recipe) -> Manifest:
    """Return a batch to learn from and as many to validate on, from all over the source, with all of its labels.

    Splits are not those of a run: nothing of a rehearsal is kept.
    """
    collection = collect(recipe.data.source, Path(recipe.data.root) if recipe.data.root is not None else None)
    photographs = collection.photographs
    if len(photographs) < 2:
        raise BundleError(f"{collection.root} has too few photographs to learn from some and validate on others")
    wanted = min(2 * recipe.batch_size, len(photographs))
    chosen = [photographs[place * len(photographs) // wanted] for place in range(wanted)]
    rows = (
        Row(p.path, p.label, "val" if place % 2 else "train", hash_file(collection.root / p.path))
        for place, p in enumerate(chosen)
    )
    return Manifest(collection.root, collection.labels, tuple(rows))
