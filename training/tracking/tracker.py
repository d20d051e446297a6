"""What a tracker can do: the four things that a run gives it. Each may raise whatever its library raises."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from training.data.cache import Pixels
from visionserve.model_card import ModelCard

Parameter = bool | int | float | str


class Tracker(Protocol):
    """One run of one tracker, open for writing."""

    @property
    def id(self) -> str:
        """What the tracker calls the run."""

    @property
    def place(self) -> str:
        """Where a person finds the run."""

    def parameters(self, values: Mapping[str, Parameter], text: str) -> None:
        """Log the recipe: flattened, and as the YAML ``text`` that repeats the run."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log points of curves at an optimizer step."""

    def picture(self, name: str, pixels: Pixels, step: int) -> None:
        """Log a picture, (H, W, 3) uint8; it may replace the one of an earlier step."""

    def bundle(self, folder: Path, card: ModelCard, step: int) -> None:
        """Log a bundle as an artifact with its card."""

    def close(self, status: str) -> None:
        """Write out what waits; ``status`` is Lightning's: ``success`` or ``failed``."""


def headline(card: ModelCard) -> dict[str, float]:
    """Return the card's figures that are single numbers, as ``bundle/top1`` and so on."""
    return {f"bundle/{name}": float(value) for name, value in card.metrics.items() if _single(value)}


def _single(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
