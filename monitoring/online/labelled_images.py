"""Labelled photographs: a folder of class folders, or a CSV file of paths and labels with a root."""

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from visionserve.files import is_image


class Unusable(Exception):
    """What was given cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Labelled:
    """A photograph: its path below the root, with forward slashes, the file, and what it shows."""

    name: str
    file: Path
    label: str

    @property
    def digest(self) -> str:
        """SHA-256 of the name: what the log has of it."""
        return hashlib.sha256(self.name.encode("utf-8", "surrogateescape")).hexdigest()


def collect(source: Path, root: Path | None, split: str | None, most: int | None) -> list[Labelled]:
    """Return the photographs of a folder or a CSV file, sorted by name.

    Args:
        source: a folder of class folders, or a CSV file with the columns path and label, and perhaps split.
        root: where the paths of the CSV file begin; its own folder when None.
        split: of a CSV file that has splits, only this one.
        most: of more photographs, so many are taken, spread evenly over the sorted names.

    Raises:
        Unusable: there is nothing to post.
    """
    if source.is_dir():
        found = _from_folder(source)
    elif source.is_file():
        found = _from_csv(source, root or source.parent, split)
    else:
        raise Unusable(f"there is no folder or CSV file {source}")
    if not found:
        raise Unusable(f"{source} has no labelled photograph: expected a folder for each label, or path,label lines")
    found.sort(key=lambda entry: entry.name)
    if most is None or len(found) <= most:
        return found
    return [found[place * len(found) // most] for place in range(most)]


def rename(photographs: Sequence[Labelled], names: Mapping[str, str]) -> list[Labelled]:
    """Return the photographs with their labels called what the model calls them."""
    return [Labelled(entry.name, entry.file, names.get(entry.label, entry.label)) for entry in photographs]


def digest(photographs: Sequence[Labelled]) -> str:
    """Return a SHA-256 of which photographs these are, and what they show."""
    text = "\n".join(f"{entry.digest} {entry.label}" for entry in photographs)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _from_folder(folder: Path) -> list[Labelled]:
    return [
        Labelled(file.relative_to(folder).as_posix(), file, own.name)
        for own in folder.iterdir()
        if own.is_dir() and not own.name.startswith(".")
        for file in own.rglob("*")
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
