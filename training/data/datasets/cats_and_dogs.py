"""Cats and dogs (Microsoft's and Kaggle's Dogs vs Cats): Cat/N.jpg and Dog/N.jpg, perhaps below PetImages/.

The published archive also holds a Thumbs.db in each folder, two empty files and some that are truncated:
`training.data.corrupt_files` finds those.
"""

from pathlib import Path

from training.data.datasets import Collection, ImageFile
from visionserve.errors import BundleError

_FOLDERS = {"Cat": "cat", "Dog": "dog"}


def collect(root: Path) -> Collection:
    """Index every JPEG file, by number; no official split exists."""
    folder = root / "PetImages" if (root / "PetImages").is_dir() else root
    missing = [name for name in _FOLDERS if not (folder / name).is_dir()]
    if missing:
        raise BundleError(f"{root} is not a folder of cats and dogs: {missing[0]}/ is missing")
    files = [path for name in _FOLDERS for path in (folder / name).iterdir() if path.is_file()]
    images = [
        ImageFile(path.relative_to(root).as_posix(), _FOLDERS[path.parent.name])
        for path in sorted(files, key=lambda path: (path.parent.name, len(path.name), path.name))
        if path.suffix.lower() == ".jpg"
    ]
    others = sorted(path.relative_to(root).as_posix() for path in files if path.suffix.lower() != ".jpg")
    return Collection(root, tuple(_FOLDERS.values()), tuple(images), tuple(others))
