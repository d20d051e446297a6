"""Duplicates: images that are the same file, or look the same, and whether a split puts them on two sides."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from training.data.datasets import Split
from training.data.describe.scan import Measured
from training.data.duplicates import Pair


def exact(images: Sequence[Measured]) -> list[list[int]]:
    """Return the indices of images that are byte for byte the same, a list per file."""
    indices: dict[str, list[int]] = defaultdict(list)
    for index, measured in enumerate(images):
        indices[measured.sha256].append(index)
    return [same for same in indices.values() if len(same) > 1]


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
