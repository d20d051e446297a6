"""Sources: folders of labelled photographs in the layouts they are published in.

A source knows where photographs lie, what they show and, if so published, which split they belong to. It opens none.
"""

import importlib
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
    """Everything a source holds.

    Attributes:
        labels: in the order of the network's outputs.
        others: paths of files among the photographs that are none by their names; nothing reads them.
    """

    root: Path
    labels: tuple[str, ...]
    photographs: tuple[Photograph, ...]
    others: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        empty = sorted(set(self.labels) - {photograph.label for photograph in self.photographs})
        if empty:
            raise BundleError(f"{self.root}: no photograph for {len(empty)} labels, {empty[0]!r} among them")


def collect(source: str, root: Path | None) -> Collection:
    """Index the photographs of ``source`` below ``root``; None downloads what is published.

    Raises:
        BundleError: the folder is not there, cannot be read, or has not the source's layout.
    """
    from training.data.datasets import published  # here, so that a source can import this module

    layout = importlib.import_module(f"training.data.datasets.{source.replace('-', '_')}")
    place = root if root is not None else published.download(source)
    try:
        if not place.is_dir():
            raise BundleError(f"there is no folder {place}")
        found: Collection = layout.collect(place)
    except OSError as error:
        raise BundleError(f"{error.filename} cannot be read: {error.strerror}") from error
    return found
