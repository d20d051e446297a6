"""Labelled images: a folder of class folders, or a CSV file of paths and labels with a root."""

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from visionserve.files import is_image

_SEED = 1


class Unusable(Exception):
    """The images or their list cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Labelled:
    """An image: its path below the root, with forward slashes, the file, and its label."""

    name: str
    file: Path
    label: str

    @property
    def digest(self) -> str:
        """SHA-256 of the name, which identifies the image in the log."""
        return hashlib.sha256(self.name.encode("utf-8", "surrogateescape")).hexdigest()


def collect(source: Path, root: Path | None, split: str | None, limit: int | None) -> list[Labelled]:
    """Return the images of a folder or a CSV file in a seeded random order.

    Names often follow the labels: posted by name, each window of the log would hold the images of a few labels only,
    and the drift check would report it.

    Args:
        source: a folder of class folders, or a CSV file with the columns path and label, and perhaps split.
        root: the folder that the paths of the CSV file start from; its own folder when None.
        split: the only one to take, of a CSV file that has splits.
        limit: of more images, so many are taken, spread evenly over the sorted names.

    Raises:
        Unusable: there is nothing to post.
    """
    if source.is_dir():
        images = _from_folder(source)
    elif source.is_file():
        images = _from_csv(source, root or source.parent, split)
    else:
        raise Unusable(f"{source} is neither a folder nor a CSV file")
    if not images:
        raise Unusable(f"no labelled images in {source}: expected a folder for each label, or path,label lines")
    images.sort(key=lambda entry: entry.name)
    if limit is not None and limit < len(images):
        images = [images[index * len(images) // limit] for index in range(limit)]
    return [images[index] for index in np.random.default_rng(_SEED).permutation(len(images))]


def rename(images: Sequence[Labelled], names: Mapping[str, str]) -> list[Labelled]:
    """Return the images with their labels replaced by the model's."""
    return [Labelled(entry.name, entry.file, names.get(entry.label, entry.label)) for entry in images]


def digest(images: Sequence[Labelled]) -> str:
    """Return a SHA-256 of the images' names and labels."""
    text = "\n".join(f"{entry.digest} {entry.label}" for entry in images)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _from_folder(folder: Path) -> list[Labelled]:
    return [
        Labelled(file.relative_to(folder).as_posix(), file, label.name)
        for label in folder.iterdir()
        if label.is_dir() and not label.name.startswith(".")
        for file in label.rglob("*")
        if is_image(file)
    ]


def _from_csv(path: Path, root: Path, split: str | None) -> list[Labelled]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Unusable(f"{path} cannot be read as a CSV file: {error}") from error
    if rows and not {"path", "label"} <= set(rows[0]):
        raise Unusable(f"{path}: its first line must name the columns path and label")
    if rows and split is not None and "split" in rows[0]:
        rows = [row for row in rows if row["split"] == split]
    return [Labelled(row["path"], root / row["path"], row["label"]) for row in rows if row["path"] and row["label"]]
