"""Any folder of class folders, or of train, val and test folders of class folders; a label is its folder's name."""

from collections.abc import Iterator
from pathlib import Path

from training.data.datasets import SPLITS, Collection, ImageFile, Split
from visionserve.errors import BundleError
from visionserve.files import is_image


def collect(root: Path) -> Collection:
    """Index every image file below ``root``; labels are sorted by name."""
    names = {folder.name for folder in _folders(root)}
    if "train" in names and names & {"val", "test"}:
        parts: list[tuple[Path, Split | None]] = [(root / split, split) for split in SPLITS if split in names]
    else:
        parts = [(root, None)]
    labels = tuple(sorted({folder.name for part, _ in parts for folder in _folders(part)}))
    if len(labels) < 2:
        raise BundleError(f"{root} needs a folder of images for each of two or more labels")
    files = [
        (path, folder.name, split) for part, split in parts for folder in _folders(part) for path in _files(folder)
    ]
    images = tuple(
        ImageFile(path.relative_to(root).as_posix(), label, split) for path, label, split in files if is_image(path)
    )
    others = tuple(path.relative_to(root).as_posix() for path, _, _ in files if not is_image(path))
    return Collection(root, labels, images, others)


def _folders(part: Path) -> list[Path]:
    return sorted(path for path in part.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files(folder: Path) -> Iterator[Path]:
    """Yield every file at any depth; unlike rglob, a folder that cannot be read is an error."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _files(path)
        elif not path.name.startswith("."):
            yield path
