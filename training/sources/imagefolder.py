"""Any folder of class folders, or of train, val and test folders of class folders; a label is its folder's name."""

from pathlib import Path

from training.sources import SPLITS, Collection, Photograph, Split
from visionserve.errors import BundleError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})


def collect(root: Path) -> Collection:
    """Index every image file below ``root``; labels are sorted by name."""
    if (root / "train").is_dir() and ((root / "val").is_dir() or (root / "test").is_dir()):
        parts: list[tuple[Path, Split | None]] = [(root / split, split) for split in SPLITS if (root / split).is_dir()]
    else:
        parts = [(root, None)]
    labels = tuple(sorted({folder.name for part, _ in parts for folder in _folders(part)}))
    if len(labels) < 2:
        raise BundleError(f"{root} needs a folder of photographs for each of two or more labels")
    return Collection(root, labels, tuple(p for part, split in parts for p in _photographs(root, part, split)))


def _folders(part: Path) -> list[Path]:
    return sorted(path for path in part.iterdir() if path.is_dir() and not path.name.startswith("."))


def _photographs(root: Path, part: Path, split: Split | None) -> list[Photograph]:
    return [
        Photograph(path.relative_to(root).as_posix(), folder.name, split)
        for folder in _folders(part)
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES
    ]
