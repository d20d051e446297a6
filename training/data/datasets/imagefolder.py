"""A folder of class folders (torchvision's ImageFolder), or of train, val and test folders of class folders."""

import unicodedata
from collections.abc import Iterator
from pathlib import Path

from training.data.datasets import SPLITS, Collection, ImageFile, Split, is_hidden
from visionserve.errors import BundleError
from visionserve.files import is_image

# Names that labelling tools export: a top folder of such a name is a split, never a label.
SPLIT_NAMES: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def collect(root: Path) -> Collection:
    """Index every image file below ``root``; labels are sorted by name.

    Hidden files and folders, and files whose names are not those of images, are among the collection's ``others``.
    """
    parts = _splits(root)
    folders = [(folder, split) for part, split in parts for folder in _folders(part)]
    names = {unicodedata.normalize("NFC", folder.name).strip() for folder, _ in folders}
    _refuse_same_names([folder for folder, _ in folders])
    if len(names) < 2:
        raise BundleError(f"{root} needs a folder of images for each of two or more labels")
    files = [
        (path, unicodedata.normalize("NFC", folder.name).strip(), split)
        for folder, split in folders
        for path in _files(folder)
    ]
    usable = [entry for entry in files if is_image(entry[0]) and not _hidden(entry[0], root)]
    images = tuple(ImageFile(path.relative_to(root).as_posix(), label, split) for path, label, split in usable)
    used = {path for path, _, _ in usable}
    others = [path for path, _, _ in files if path not in used]
    others += [path for part in {root, *(part for part, _ in parts)} for path in _loose_files(part)]
    return Collection(root, tuple(sorted(names)), images, tuple(sorted(p.relative_to(root).as_posix() for p in others)))


def folder_of(collection: Collection, label: str) -> str:
    """Return where new images of a label belong: its folder below the root, of the training images if there are splits.

    Raises:
        BundleError: a new label cannot be the name of a folder of images.
    """
    divided = any(image.split is not None for image in collection.images)
    depth = 2 if divided else 1
    for image in collection.images:
        if image.label == label and image.split in (None, "train"):
            return "/".join(image.path.split("/")[:depth])
    if is_hidden(label) or label.casefold() in SPLIT_NAMES or Path(label).name != label or "\\" in label:
        raise BundleError(f"{label!r} cannot be the name of a folder of images: choose another label")
    train = next((image.path.split("/")[0] for image in collection.images if image.split == "train"), "train")
    return f"{train}/{label}" if divided else label


def _splits(root: Path) -> list[tuple[Path, Split | None]]:
    """Return the folders of class folders, each with its split; one without if ``root`` is that folder.

    Raises:
        BundleError: some top folders are named like splits and others are not, or two like the same split.
    """
    folders = _folders(root)
    named = {folder: SPLIT_NAMES[name] for folder in folders if (name := folder.name.casefold()) in SPLIT_NAMES}
    if not named:
        return [(root, None)]
    first = next(iter(named))
    labels = [folder.name for folder in folders if folder not in named]
    if labels:
        raise BundleError(
            f"{first} is named like a split and {root / labels[0]} like a label: move the labels into the folders of "
            f"the splits, or rename {first.name} if it is a label"
        )
    if len(set(named.values())) < len(named):
        twice = [folder.name for folder, split in named.items() if list(named.values()).count(split) > 1]
        raise BundleError(f"{root} has several folders for the same split ({', '.join(twice)}): merge them")
    if "train" not in named.values() or len(named) == 1:
        raise BundleError(
            f"{root} has a folder named {first.name} but not train and val or test: give the folder of class folders "
            f"as --data.root, such as {first}, or rename {first.name} if it is a label"
        )
    return sorted(((folder, split) for folder, split in named.items()), key=lambda part: SPLITS.index(part[1]))


def _refuse_same_names(folders: list[Path]) -> None:
    """Raise a BundleError for two labels that differ in nothing that can be seen."""
    by_name: dict[str, str] = {}
    for folder in folders:
        other = by_name.setdefault(unicodedata.normalize("NFC", folder.name).strip(), folder.name)
        if other != folder.name:
            raise BundleError(
                f"two folders have the same name {folder.name.strip()!r} in two Unicode forms or with spaces around "
                f"it, one of them {folder}: merge them"
            )


def _folders(part: Path) -> list[Path]:
    return sorted(path for path in part.iterdir() if path.is_dir() and not is_hidden(path.name))


def _files(folder: Path) -> Iterator[Path]:
    """Yield every file at any depth; unlike rglob, a folder that cannot be read is an error."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _files(path)
        else:
            yield path


def _loose_files(part: Path) -> Iterator[Path]:
    """Yield the files that lie beside the class folders, and those of hidden folders there."""
    for path in sorted(part.iterdir()):
        if path.is_dir() and is_hidden(path.name):
            yield from _files(path)
        elif path.is_file():
            yield path


def _hidden(path: Path, root: Path) -> bool:
    return any(is_hidden(part) for part in path.relative_to(root).parts)
