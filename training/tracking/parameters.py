"""The parameters of a run as trackers want them: one flat table."""

from collections.abc import Iterator
from typing import Any

from training import recipe as recipes
from training.data.manifest import Manifest
from training.recipe import Recipe
from training.tracking.tracker import Parameter


def parameters(recipe: Recipe, manifest: Manifest) -> dict[str, Parameter]:
    """Return ``optimizer.clip: 0.0`` and so on, and what was learnt from; nothing of the tracker itself."""
    content = recipes.plain(recipe)
    content.pop("tracking")
    counts = {split: len(manifest.part(split)) for split in ("train", "val", "test")}
    learnt_from = {"sha256": manifest.digest, "labels": len(manifest.labels), **counts}
    return dict(_flat(content | {"manifest": learnt_from}))


def _flat(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Parameter]]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield from _flat({str(place): entry for place, entry in enumerate(value)}, f"{prefix}{name}.")
        else:
            yield prefix + name, value if isinstance(value, Parameter) else str(value)
