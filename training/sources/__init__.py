"""Sources: folders of labelled photographs in the layouts they are published in.

A source knows where photographs lie, what they show and, if so published, which split they belong to. It opens none.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from visionserve.errors import BundleError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Photograph:
    """One file: its path below the root with forward slashes, its label and, if the source says so, its split."""

    path: str
    label: str
    split: Split | None = None


@dataclass(frozen=True)
class Collection:
    """Everything a source holds; ``labels`` are in the order of the network's outputs."""

    root: Path
    labels: tuple[str, ...]
    photographs: tuple[Photograph, ...]

    def __post_init__(self) -> None:
        empty = sorted(set(self.labels) - {photograph.label for photograph in self.photographs})
        if empty:
            raise BundleError(f"{self.root}: no photograph for {len(empty)} labels, {empty[0]!r} among them")


def collect(source: str, root: Path | None) -> Collection:
    """Index the photographs of ``source`` below ``root``; Oxford 102 Flowers can be downloaded instead of given."""
    from training.sources import flowers102, imagefolder  # here, so that the two can import this module

    if source == "flowers102":
        return flowers102.collect(root if root is not None else flowers102.download())
    if root is None:
        raise BundleError("an image folder needs its place: --data.root FOLDER")
    return imagefolder.collect(root)
