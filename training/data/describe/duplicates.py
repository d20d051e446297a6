"""Duplicates: images that are the same file, or look the same, and whether a split puts them on two sides."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from training.data.datasets import Split
from training.data.describe.scan import WORDS, Hash, Measured

# Of 256 bits. Looked at on Oxford 102: up to here nearly every pair shows one motif; from 76 on chance begins to match
# single flowers on black. Two images that have nothing in common differ in 128 bits, give or take 8.
DISTANCE = 72
_BLOCK = 512  # images compared with all others at a time


@dataclass(frozen=True)
class Pair:
    """Two images that look the same: their indices among the measured ones, and the bits that differ."""

    one: int
    other: int
    distance: int


def exact(images: Sequence[Measured]) -> list[list[int]]:
    """Return the indices of images that are byte for byte the same, a list per file."""
    indices: dict[str, list[int]] = defaultdict(list)
    for index, measured in enumerate(images):
        indices[measured.sha256].append(index)
    return [same for same in indices.values() if len(same) > 1]


def near(images: Sequence[Measured], distance: int = DISTANCE) -> tuple[list[Pair], np.ndarray]:
    """Return the pairs at most ``distance`` bits apart, nearest first, and each image's distance to its nearest.

    Every pair is compared, a block of rows at a time.
    """
    count = len(images)
    looks: Hash = np.stack([m.look for m in images]) if images else np.empty((0, WORDS), np.uint64)
    nearest = np.full(count, 64 * WORDS, np.int16)
    pairs: list[Pair] = []
    for first in range(0, count, _BLOCK):
        rows = looks[first : first + _BLOCK]
        apart = sum(
            np.bitwise_count(rows[:, None, word] ^ looks[None, :, word]).astype(np.int16) for word in range(WORDS)
        )
        apart[np.arange(len(rows)), np.arange(first, first + len(rows))] = 64 * WORDS  # itself
        nearest[first : first + len(rows)] = apart.min(1, initial=64 * WORDS)
        near_pairs = np.argwhere(apart <= distance) + np.array([first, 0])
        pairs += [Pair(a, b, int(apart[a - first, b])) for a, b in near_pairs.tolist() if a < b]
    return sorted(pairs, key=lambda pair: (pair.distance, pair.one, pair.other)), nearest


def crossing(pairs: Sequence[Pair], images: Sequence[Measured], split: Mapping[str, Split]) -> list[Pair]:
    """Return the pairs whose images a split puts on two sides."""
    sides = [[split.get(images[index].image.path) for index in (p.one, p.other)] for p in pairs]
    return [pair for pair, (a, b) in zip(pairs, sides, strict=True) if a != b and a is not None and b is not None]


def leaked(pairs: Sequence[Pair], images: Sequence[Measured], splits: Mapping[str, Split], split: Split) -> int:
    """Return how many images of a split have a duplicate in the training split."""
    leaked_images = set()
    for pair in pairs:
        for held_out, train in ((pair.one, pair.other), (pair.other, pair.one)):
            sides = [splits.get(images[index].image.path) for index in (held_out, train)]
            if sides == [split, "train"]:
                leaked_images.add(held_out)
    return len(leaked_images)
