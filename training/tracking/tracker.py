"""A tracker, what is logged to it, and <run>/tracking.json: which of its runs belongs to a run's folder."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from training import recipe as recipes
from training.data.cache import Pixels
from training.data.manifest import Manifest
from training.recipe import Recipe, TrackerName, Tracking
from visionserve.errors import BundleError
from visionserve.files import write_text
from visionserve.model_card import ModelCard

FILE_NAME = "tracking.json"
Parameter = bool | int | float | str


class Tracker(Protocol):
    """One run of one tracker, open for writing; each method may raise whatever the tracker's library raises."""

    @property
    def id(self) -> str:
        """What the tracker calls the run."""

    @property
    def location(self) -> str:
        """Where a person finds the run."""

    def parameters(self, values: Mapping[str, Parameter], text: str) -> None:
        """Log the recipe: flattened, and as the YAML ``text`` that repeats the run."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log points of curves at an optimizer step."""

    def image(self, name: str, pixels: Pixels, step: int) -> None:
        """Log an image, (H, W, 3) uint8; it may replace the one of an earlier step."""

    def bundle(self, folder: Path, card: ModelCard, step: int) -> str:
        """Log a bundle as an artifact with its card; return a sentence on what was logged where."""

    def close(self, status: str) -> None:
        """Write out what waits; ``status`` is Lightning's: ``success`` or ``failed``."""


@dataclass
class State:
    """What a later process needs to go on in the same tracker's run.

    Attributes:
        uri: as the recipe gave it; it never holds a password.
        id: what the tracker calls the run; empty before it has begun.
        sent: how many times something was logged.
        logged: the last optimizer step of each curve and image.
    """

    tracker: TrackerName
    uri: str | None = None
    id: str = ""
    sent: int = 0
    logged: dict[str, int] = field(default_factory=dict)

    @property
    def last(self) -> int:
        """The last optimizer step of all."""
        return max(self.logged.values(), default=0)

    def belongs_to(self, tracking: Tracking) -> bool:
        """Whether this run is in the tracker that ``tracking`` means."""
        return (self.tracker, self.uri) == (tracking.tracker, tracking.uri)

    def save(self, folder: Path) -> None:
        """Write the file, whole or not at all."""
        write_text(folder / FILE_NAME, json.dumps(asdict(self), indent=1) + "\n")


def read_state(folder: Path) -> State | None:
    """Return the state of the run in ``folder``; None when it was not tracked."""
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    try:
        return State(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise BundleError(f"{path} cannot be read ({error}): delete it, and the tracker begins another run") from error


def parameters(recipe: Recipe, manifest: Manifest) -> dict[str, Parameter]:
    """Return ``optimizer.clip: 0.0`` and so on, and what it was trained on; nothing of the tracker itself."""
    content = recipes.plain(recipe)
    content.pop("tracking")
    counts = {split: len(manifest.part(split)) for split in ("train", "val", "test")}
    data = {"sha256": manifest.digest, "labels": len(manifest.labels), **counts}
    flat = recipes.flat(content | {"manifest": data})
    return {name: value if isinstance(value, Parameter) else str(value) for name, value in flat}


def headline(card: ModelCard) -> dict[str, float]:
    """Return the card's figures that are single numbers, as ``bundle/top1`` and so on."""
    return {f"bundle/{name}": float(value) for name, value in card.metrics.items() if _single(value)}


def _single(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
