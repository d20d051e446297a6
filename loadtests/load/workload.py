"""Traffic: which body is sent next: photographs by their weight, and a share of broken bodies."""

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loadtests.load import invalid_bodies
from loadtests.load.images import Photograph


@dataclass(frozen=True)
class Item:
    """One body to send; ``expected`` is the label it must get, None where any will do."""

    name: str
    body: bytes
    expected: str | None = None
    broken: bool = False


class Traffic:
    """An endless, reproducible sequence of items."""

    def __init__(
        self,
        photographs: Sequence[Photograph],
        expected: Mapping[str, str] | None = None,
        broken_share: float = 0.0,
        seed: int = 0,
    ) -> None:
        """Mix photographs and broken bodies.

        Args:
            expected: the label that each photograph must get, by its name.
            broken_share: of all bodies, 0-1.

        Raises:
            ValueError: no photograph, or a share out of range.
        """
        if not photographs:
            raise ValueError("there is no photograph to send")
        if not 0 <= broken_share < 1:
            raise ValueError(f"the share of broken bodies must be in [0, 1), not {broken_share}")
        labels = expected or {}
        self._items = [Item(photo.name, photo.body, labels.get(photo.name)) for photo in photographs]
        self._weights = list(itertools.accumulate(photo.weight for photo in photographs))
        self._broken = [
            Item(kind, body, broken=True) for kind, body in invalid_bodies.bodies(photographs[0].body).items()
        ]
        self._share = broken_share
        self._random = random.Random(seed)

    def next(self) -> Item:
        """Return the next item."""
        if self._share and self._random.random() < self._share:
            return self._random.choice(self._broken)
        return self._random.choices(self._items, cum_weights=self._weights)[0]

    @property
    def items(self) -> list[Item]:
        """Everything that can be sent, each once."""
        return [*self._items, *(self._broken if self._share else [])]
