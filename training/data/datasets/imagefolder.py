"""A folder of class folders (torchvision's ImageFolder), or of train, val and test folders of class folders."""

import os
from collections.abc import Iterator
from pathlib import Path

from training.data.datasets import SPLITS, Collection, ImageFile, Split, is_hidden
from training.data.datasets.names import label_of, split_of
from visionserve.errors import BundleError
from visionserve.files import is_image


def collect(root: Path) -> Collection:
    """Index every image file below ``root``; labels are sorted by name.

    Hidden files and folders, and files whose names are not those of images, are among the collection's ``others``.
    """
    parts = _splits(root)
    folders = [(folder, split) for part, split in parts for folder in _folders(part)]
    names = {label_of(folder.name) for folder, _ in folders}
    _refuse_same_names([folder for folder, _ in folders])
    if len(names) < 2:
        raise BundleError(f"{root} needs a folder of images for each of two or more labels")
    for folder, _ in folders:
        _refuse_splits_inside(folder)
    files = [(path, label_of(folder.name), split) for folder, split in folders for path in _files(folder)]
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
    if is_hidden(label) or split_of(label) or Path(label).name != label or "\\" in label:
        raise BundleError(f"{label!r} cannot be the name of a folder of images: choose another label")
    train = next((image.path.split("/")[0] for image in collection.images if image.split == "train"), "train")
    return f"{train}/{label}" if divided else label


def _splits(root: Path) -> list[tuple[Path, Split | None]]:
    """Return the folders of class folders, each with its split; one without if ``root`` is that folder.

    Raises:
        BundleError: some top folders are named like splits and others are not, or two like the same split.
    """
    folders = _folders(root)
    named = {folder: split for folder in folders if (split := split_of(folder.name)) is not None}
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
        other = by_name.setdefault(label_of(folder.name), folder.name)
        if other != folder.name:
            raise BundleError(
                f"two folders have the same name {folder.name.strip()!r} in two Unicode forms or with spaces around "
                f"it, one of them {folder}: merge them"
            )


def _refuse_splits_inside(folder: Path) -> None:
    """Raise a BundleError for a label that has folders for splits: they belong above the labels."""
    inside = {split: path for path in _folders(folder) if (split := split_of(path.name)) is not None}
    if "train" in inside and len(inside) > 1:
        names = " and ".join(sorted(path.name for path in inside.values()))
        raise BundleError(
            f"{folder} is a label with folders for splits inside ({names}): put the splits above the labels, such as "
            f"{folder.parent / inside['train'].name / folder.name}, or rename them"
        )


def _folders(part: Path) -> list[Path]:
    return sorted(path for path in _inside(part) if path.is_dir() and not is_hidden(path.name))


def _inside(folder: Path) -> list[Path]:
    """Return what is in a folder, by name; a BundleError for a link to nothing, of which nothing would be said."""
    paths = sorted(folder.iterdir())
    broken = next((path for path in paths if path.is_symlink() and not _exists(path)), None)
    if broken is not None and not is_hidden(broken.name):
        raise BundleError(f"{broken} is a link to {broken.readlink()}, which is not there: remove or mend it")
    return paths


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except OSError:
        return False
    return True


def _files(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Yield every file at any depth; unlike rglob, a folder that cannot be read is an error.

    Raises:
        BundleError: a link leads back to a folder that it lies in.
    """
    here = folder.resolve()
    above = (*(above or here.parents), here)
    for path in _inside(folder):
        if not path.is_dir():
            yield path
        elif is_hidden(path.name):
            yield from _hidden_files(path)
        elif path.is_symlink() and path.resolve() in above:
            raise BundleError(f"{path} is a link to {path.resolve()}, in which it lies itself: remove it")
        else:
            yield from _files(path, above)


def _hidden_files(folder: Path) -> Iterator[Path]:
    """Yield the files of a hidden folder; no link in it is followed, and none is wrong: nothing of it is used."""
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in sorted(names))


def _loose_files(part: Path) -> Iterator[Path]:
    """Yield the files that lie beside the class folders, and those of hidden folders there."""
    for path in sorted(part.iterdir()):
        if path.is_dir() and is_hidden(path.name):
            yield from _hidden_files(path)
        elif not path.is_dir():
            yield path


def _hidden(path: Path, root: Path) -> bool:
    return any(is_hidden(part) for part in path.relative_to(root).parts)
