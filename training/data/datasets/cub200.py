"""CUB-200-2011 (Wah et al. 2011) in its published layout: lists in text files, images/, parts/.

The official split has a train and a test part; `--data.split given-test` takes images to validate on out of the
former. Images that are not on disk are left out, so a part of the data set is a data set too. Bounding boxes and
part locations are read only when somebody asks for them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.data.datasets import Collection, ImageFile, Split
from visionserve.errors import BundleError

IMAGES = "images"
# Of the parts, what can be told apart at the few places of a class map; a part that is not here stands for itself.
_REGIONS = {
    "head": ("beak", "crown", "forehead", "left eye", "nape", "right eye", "throat"),
    "body": ("back", "belly", "breast"),
    "wing": ("left wing", "right wing"),
    "leg": ("left leg", "right leg"),
}


@dataclass(frozen=True)
class Box:
    """A bird's bounding box in pixels of the file as stored: ``x``, ``y`` of its upper left corner."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Part:
    """A part of a bird, its place in pixels of the file as stored; one that is not ``visible`` has no place."""

    name: str
    x: float
    y: float
    visible: bool


@dataclass(frozen=True)
class Annotation:
    """What is known about the bird of one image besides its label."""

    box: Box
    parts: tuple[Part, ...]


def collect(root: Path) -> Collection:
    """Index the images on disk with their labels and official splits; labels are those of images on disk.

    Raises:
        BundleError: a list is missing or has a line that cannot be right; the message names file and line.
    """
    classes = dict(_lines(root / "classes.txt", int, str))
    class_of = dict(_lines(root / "image_class_labels.txt", int, int))
    in_training = dict(_lines(root / "train_test_split.txt", int, int))
    images, present = [], set()
    for number, name in _lines(root / "images.txt", int, str):
        label = classes.get(class_of.get(number, 0))
        if label is None or in_training.get(number) not in (0, 1):
            raise BundleError(
                f"{root}: image {number} needs a class of classes.txt and a 0 or 1 in train_test_split.txt, "
                f"not {class_of.get(number)} and {in_training.get(number)}"
            )
        if (root / IMAGES / name).is_file():
            present.add(label)
            split: Split = "train" if in_training[number] else "test"
            images.append(ImageFile(f"{IMAGES}/{name}", readable(label), split))
    if not images:
        raise BundleError(f"none of the images that {root / 'images.txt'} lists is in {root / IMAGES}")
    return Collection(root, tuple(readable(name) for name in classes.values() if name in present), tuple(images))


def annotations(root: Path) -> dict[str, Annotation]:
    """Return path below ``root`` -> annotation, for every image that is listed, on disk or not.

    Raises:
        BundleError: a list is missing, has a line that cannot be right, or knows no box of an image.
    """
    boxes = {
        number: Box(*corner_and_size)
        for number, *corner_and_size in _lines(root / "bounding_boxes.txt", int, *[float] * 4)
    }
    names = dict(_lines(root / "parts" / "parts.txt", int, str))
    parts: dict[int, list[Part]] = {}
    for number, part, x, y, visible in _lines(root / "parts" / "part_locs.txt", int, int, float, float, int):
        if part not in names:
            raise BundleError(f"{root / 'parts' / 'part_locs.txt'}: image {number} has an unknown part {part}")
        parts.setdefault(number, []).append(Part(names[part], x, y, bool(visible)))
    annotations = {}
    for number, name in _lines(root / "images.txt", int, str):
        if number not in boxes:
            raise BundleError(f"{root / 'bounding_boxes.txt'} has no box of image {number}")
        annotations[f"{IMAGES}/{name}"] = Annotation(boxes[number], tuple(parts.get(number, ())))
    return annotations


def has_parts(root: Path) -> bool:
    """Whether a folder has the part locations of this data set."""
    return (root / "parts" / "part_locs.txt").is_file() and (root / "bounding_boxes.txt").is_file()


def region(part: Part) -> str:
    """Return the region of the bird that a part belongs to: head, body, wing, leg or tail."""
    return next((region for region, names in _REGIONS.items() if part.name in names), part.name)


def readable(name: str) -> str:
    """Return a class's name as people write it: "001.Black_footed_Albatross" is "Black footed Albatross"."""
    return name.partition(".")[2].replace("_", " ") or name


def _lines(path: Path, *types: type) -> Iterator[tuple[Any, ...]]:
    """Yield the typed entries of each line of a list; the last entry takes the rest of its line."""
    if not path.is_file():
        raise BundleError(f"{path} is missing: a CUB-200-2011 folder has it as the archive unpacks")
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        entries = line.split(maxsplit=len(types) - 1)
        try:
            yield tuple(kind(entry) for kind, entry in zip(types, entries, strict=True))
        except ValueError as error:
            raise BundleError(f"{path} line {number} cannot be read ({error}): {line!r}") from error
