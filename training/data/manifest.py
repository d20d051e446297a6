"""The manifest: path, label, split and SHA-256 of every image of a run, written once, verified whenever it is used.

Its own hash goes into the model card: it says exactly what the model has and has not seen.
"""

import contextlib
import csv
import hashlib
import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cached_property
from pathlib import Path

from training.data import splits
from training.data.datasets import SPLITS, Collection, Split
from training.recipe import Shares
from visionserve.errors import BundleError
from visionserve.files import open_regular, write_text

FILE_NAME = "manifest.csv"
SEEN = "seen.txt"  # in a run and its bundle: SHA-256 of each image that its start or teacher saw, and train or val
LEFT_OUT = "left-out.csv"  # beside a grown manifest: the new images that did not join it, and why
_log = logging.getLogger(__name__)
HEADER = ("path", "label", "split", "sha256")
FURTHER = ("accept", "group")  # columns of sources that know them


@dataclass(frozen=True)
class Row:
    """One image, below the manifest's root.

    Attributes:
        accept: further labels that count as right.
        group: what the image comes from, if the source says so.
    """

    path: str
    label: str
    split: Split
    sha256: str
    accept: tuple[str, ...] = ()
    group: str = ""


@dataclass(frozen=True)
class Manifest:
    """The images of a run; ``labels`` in the order of the network's outputs."""

    root: Path
    labels: tuple[str, ...]
    rows: tuple[Row, ...]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the manifest's CSV text, 64 hexadecimal digits."""
        return hashlib.sha256(self._csv().encode()).hexdigest()

    def part(self, split: Split) -> list[int]:
        """Return the indices in ``rows`` of one split's images."""
        return [index for index, row in enumerate(self.rows) if row.split == split]

    def groups(self, split: Split) -> tuple[str, ...]:
        """Return what each of one split's images comes from; empty where that is not known of every one."""
        return known_groups([row for row in self.rows if row.split == split])

    def targets(self) -> list[int]:
        """Return the index of each row's label."""
        index = {label: index for index, label in enumerate(self.labels)}
        return [index[row.label] for row in self.rows]

    def accepted(self) -> list[frozenset[int]]:
        """Return the indices that count as right for each row."""
        index = {label: index for index, label in enumerate(self.labels)}
        return [frozenset(index[label] for label in (row.label, *row.accept) if label in index) for row in self.rows]

    def save(self, path: Path) -> None:
        """Write the CSV file."""
        write_text(path, self._csv())

    def verify(self, remedy: str = "bring it back, or begin a new run") -> None:
        """Raise a BundleError when an image is missing or has changed since the manifest was written."""
        for row in self.rows:
            file = self.root / row.path
            if not file.is_file() or hash_file(file) != row.sha256:
                raise BundleError(f"{file} is missing or changed since the manifest was written; {remedy}")

    def _csv(self) -> str:
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        if any(row.accept or row.group for row in self.rows):
            lines = ((*astuple(row)[:4], ";".join(row.accept), row.group) for row in self.rows)
            writer.writerows([HEADER + FURTHER, *lines])
        else:
            writer.writerows([HEADER, *(astuple(row)[:4] for row in self.rows)])
        return text.getvalue()


def known_groups(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the group of each row; empty where one has none."""
    groups = tuple(row.group for row in rows)
    return groups if all(groups) else ()


def digests(collection: Collection) -> dict[str, str]:
    """Return path -> SHA-256 of every image."""
    return {p.path: hash_file(collection.root / p.path) for p in collection.images}


def build(
    collection: Collection,
    split: str,
    seed: int,
    known_digests: Mapping[str, str] | None = None,
    alike: splits.Alike = (),
    shares: Shares = splits.DEFAULT,
) -> Manifest:
    """Hash every image, split them as `splits.divide` says and return the manifest, sorted by path.

    ``known_digests`` are the images' `digests`, if they were made already; ``alike`` are pairs that look the same.
    """
    by_path = known_digests if known_digests is not None else digests(collection)
    images = collection.images
    assigned = splits.divide(split, images, {p.path: by_path[p.path] for p in images}, seed, alike, shares)
    rows = (
        Row(p.path, p.label, assigned[p.path], by_path[p.path], p.accept, p.group) for p in images if p.path in assigned
    )
    return Manifest(collection.root, collection.labels, tuple(sorted(rows, key=lambda row: row.path)))


def load(path: Path, root: Path, labels: tuple[str, ...]) -> Manifest:
    """Read a manifest's CSV file; ``labels`` gives the order of the network's outputs."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise BundleError(f"no readable manifest at {path}: {error}") from error
    width = len(lines[0]) if lines else 0
    if not lines or tuple(lines[0]) not in (HEADER, HEADER + FURTHER):
        raise BundleError(f"{path} is not a manifest: its first line must be {','.join(HEADER)}")
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != width:
            raise BundleError(f"{path}: line {number} has {len(line)} entries instead of {width}")
        name, label, split, digest = line[:4]
        accept, group = line[4:] if width > len(HEADER) else ("", "")
        side = next((name for name in SPLITS if name == split), None)
        also = tuple(entry for entry in accept.split(";") if entry)
        if side is None or label not in labels or not set(also) <= set(labels):
            raise BundleError(f"{path}: {name} has an unknown split or label ({split}, {label})")
        rows.append(Row(name, label, side, digest, also, group))
    return Manifest(root, labels, tuple(rows))


def further_file(folder: Path, name: str) -> Path:
    """Return where a run or bundle keeps the manifest of a further source."""
    return folder / f"manifest-{name}.csv"


def further_files(folder: Path) -> list[tuple[str, Path]]:
    """Return the names of further sources of a run or bundle, and their manifests."""
    return [(path.stem.removeprefix("manifest-"), path) for path in sorted(folder.glob("manifest-*.csv"))]


def load_further(folder: Path, labels: tuple[str, ...], roots: Mapping[str, Path]) -> dict[str, Manifest]:
    """Read the manifests of a bundle's further sources, by name.

    Raises:
        BundleError: the folder of one is not among ``roots``, or one of ``roots`` is none of the bundle's sources.
    """
    files = dict(further_files(folder))
    strange, missing = sorted(roots.keys() - files.keys()), sorted(files.keys() - roots.keys())
    if strange:
        raise BundleError(f"{folder} has no source {strange[0]!r} but {', '.join(sorted(files)) or 'the first only'}")
    if missing:
        raise BundleError(
            f"{folder} was trained on {missing[0]} too: say where its images are with --more {missing[0]}=DIR"
        )
    return {name: load(file, roots[name], labels) for name, file in files.items()}


def joined(manifests: Sequence[Manifest]) -> Manifest:
    """Return one manifest of all, in their order and with the labels of the first; paths below others are absolute."""
    first, *others = manifests
    rows = [replace(row, path=str((other.root / row.path).resolve())) for other in others for row in other.rows]
    return Manifest(first.root, first.labels, (*first.rows, *rows)) if others else first


def seen_by(bundle: Path) -> dict[str, str]:
    """Return SHA-256 -> ``train`` or ``val`` of the images that a bundle or run, its start or teacher has seen."""
    if not (bundle / FILE_NAME).is_file():
        _log.warning("%s has no %s: whether it has seen validation or test images is not known", bundle, FILE_NAME)
        return {}
    from training.finished import card_of  # here: torch takes seconds to import

    labels = card_of(bundle).labels
    files = [bundle / FILE_NAME, *(file for _, file in further_files(bundle))]
    rows = [row for file in files for row in load(file, bundle, labels).rows]
    seen: dict[str, str] = {row.sha256: row.split for row in rows if row.split != "test"}
    if (bundle / SEEN).is_file():
        earlier = [line.split() for line in (bundle / SEEN).read_text(encoding="utf-8").splitlines()]
        seen |= {digest: role for digest, role in earlier if seen.get(digest) != "train"}
    return seen


def seen_among(bundle: Path, files: Iterable[Path]) -> int:
    """Return how many files a bundle, its start or its teacher was trained or chosen on; unreadable ones are not."""
    if not (bundle / FILE_NAME).is_file():
        return 0
    seen, count = seen_by(bundle), 0
    for file in files:
        with contextlib.suppress(BundleError):
            count += hash_file(file) in seen
    return count


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
