"""Labelled images: a folder of class folders or with a labels.csv, a CSV file of that form, or a manifest."""

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from training.data.datasets import ImageFile, labels_csv
from visionserve.files import images_below

_SEED = 1


class Unusable(Exception):
    """The images or their list cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Labelled:
    """An image: its path below the root, with forward slashes, the file, and its label.

    ``accept`` holds further labels that count as right, ``group`` what the image comes from, if that is known.
    """

    name: str
    file: Path
    label: str
    accept: tuple[str, ...] = ()
    group: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of the name, which identifies the image in the log."""
        return hashlib.sha256(self.name.encode("utf-8", "surrogateescape")).hexdigest()


def collect(
    source: Path, root: Path | None, split: str | None, limit: int | None, labels: Sequence[str] | None = None
) -> list[Labelled]:
    """Return the images of a folder or a CSV file in a seeded random order.

    Names often follow the labels: posted by name, each window of the log would hold the images of a few labels only,
    and the drift check would report it.

    Args:
        source: a folder of class folders or with a ``labels.csv``, or a CSV file: of that form, or a manifest with the
            columns path and label, and perhaps split, accept and group.
        root: the folder that the paths of the CSV file start from; its own folder when None.
        split: the only one to take, of a CSV file that has splits.
        limit: of more images, so many are taken, spread evenly over the sorted names.
        labels: of the model, if they are known: in a ``labels.csv``, positions count in them.

    Raises:
        Unusable: there is nothing to post.
        BundleError: a ``labels.csv`` cannot be used.
    """
    table = source / labels_csv.DEFAULT.name if source.is_dir() else source
    if table.is_file():
        images = _from_csv(table, root or table.parent, split, labels)
    elif source.is_dir():
        images = _from_folder(source)
    else:
        raise Unusable(f"{source} is neither a folder nor a CSV file")
    if not images:
        raise Unusable(
            f"no labelled images in {source}: expected a folder for each label, or a CSV file with file,label lines"
        )
    images.sort(key=lambda entry: entry.name)
    if limit is not None and limit < len(images):
        images = [images[index * len(images) // limit] for index in range(limit)]
    return [images[index] for index in np.random.default_rng(_SEED).permutation(len(images))]


def rename(images: Sequence[Labelled], names: Mapping[str, str]) -> list[Labelled]:
    """Return the images with their labels replaced by the model's."""
    return [
        replace(
            entry,
            label=names.get(entry.label, entry.label),
            accept=tuple(names.get(label, label) for label in entry.accept),
        )
        for entry in images
    ]


def digest(images: Sequence[Labelled]) -> str:
    """Return a SHA-256 of the images' names and labels."""
    text = "\n".join(" ".join((entry.digest, entry.label, *entry.accept)) for entry in images)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _from_folder(folder: Path) -> list[Labelled]:
    return [
        Labelled(file.relative_to(folder).as_posix(), file, label.name)
        for label in folder.iterdir()
        if label.is_dir() and not label.name.startswith(".")
        for file in images_below(label)
    ]


def _from_csv(path: Path, root: Path, split: str | None, labels: Sequence[str] | None) -> list[Labelled]:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        first = file.readline()
    columns = {name.strip() for name in first.split(max(",;\t", key=first.count))}
    if {"path", "label"} <= columns:
        return _from_manifest(path, root, split)
    if "file" not in columns or not columns & {"label", "index"}:
        raise Unusable(f"{path}: its first line must name the columns file and label, or path and label")
    settings = replace(labels_csv.DEFAULT, name=str(path.resolve()))
    return _of_split(labels_csv.collect(root, settings, labels, others=True).images, root, split)


def _from_manifest(path: Path, root: Path, split: str | None) -> list[Labelled]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Unusable(f"{path} cannot be read as a CSV file: {error}") from error
    images = [
        ImageFile(
            row["path"],
            row["label"],
            row.get("split"),  # type: ignore[arg-type]  # compared only
            tuple(filter(None, (row.get("accept") or "").split(";"))),
            row.get("group") or "",
        )
        for row in rows
        if row["path"] and row["label"]
    ]
    return _of_split(images, root, split)


def _of_split(images: Sequence[ImageFile], root: Path, split: str | None) -> list[Labelled]:
    """Return the images of a split, where they have splits, below ``root``."""
    divided = split is not None and any(image.split for image in images)
    return [
        Labelled(image.path, root / image.path, image.label, image.accept, image.group)
        for image in images
        if not divided or image.split == split
    ]
