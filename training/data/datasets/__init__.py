"""Data sets: folders of labelled images in the layouts they are published in.

A source knows where images lie, what they show and, if so published, which split they belong to. It opens none.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from training.data.datasets import names
from training.markdown import counted
from visionserve.errors import BundleError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class ImageFile:
    """One file: its path below the root with forward slashes, and what the source says of it.

    Attributes:
        accept: further labels that count as right.
        group: what the image comes from; images of one group resemble each other.
    """

    path: str
    label: str
    split: Split | None = None
    accept: tuple[str, ...] = ()
    group: str = ""


@dataclass(frozen=True)
class Collection:
    """Everything a source holds.

    Attributes:
        labels: in the order of the network's outputs.
        others: paths of files among the images whose names are not those of images; they are not read.
    """

    root: Path
    labels: tuple[str, ...]
    images: tuple[ImageFile, ...]
    others: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        empty = sorted(set(self.labels) - {image.label for image in self.images})
        if empty:
            raise BundleError(f"{self.root}: no image for {counted(len(empty), 'label')}, {empty[0]!r} among them")
        for label in self.labels:
            if names.unprintable(label):
                raise BundleError(
                    f"{self.root}: the label {label!r} has a line break, another control character or bytes that are "
                    "not UTF-8: rename it"
                )
        for image in self.images:
            if not names.in_utf8(image.path):
                raise BundleError(f"{self.root}: the name of the file {image.path!r} is not in UTF-8: rename it")


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is the system's (macOS, Synology, Windows), not the user's."""
    return name.startswith(".") or name in ("__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini")


def collect(source: str, root: Path | None, **settings: Any) -> Collection:
    """Index the images of ``source`` below ``root``; None downloads what is published.

    Args:
        settings: of a ``labels-csv`` source: ``csv``, and the ``labels`` that its positions count in.

    Raises:
        BundleError: the folder is not there, cannot be read, or has not the source's layout.
    """
    from training.data.datasets import published  # here, so that a source can import this module

    layout = importlib.import_module(f"training.data.datasets.{source.replace('-', '_')}")
    folder = root if root is not None else published.download(source)
    try:
        if not folder.is_dir():
            raise BundleError(f"folder {folder} does not exist")
        collection: Collection = (
            layout.collect(folder, **settings) if source == "labels-csv" else layout.collect(folder)
        )
    except OSError as error:
        raise BundleError(f"{error.filename} cannot be read: {error.strerror}") from error
    return collection
