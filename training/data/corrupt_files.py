"""Images that cannot be used: corrupt before training by decoding every one as the service would, listed, left out.

What was found is remembered by the bytes' SHA-256, so that an image is tried once and not once a run.
"""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from tqdm.contrib.concurrent import thread_map

from training.data.cache import read
from training.data.datasets import Collection
from visionserve.errors import BundleError, ServiceError
from visionserve.images import decode

FILE_NAME = "corrupt.csv"
MEMORY = "decoded.csv"  # in the folder of decoded images: sha256 and reason, empty for one that decodes
# The service's messages speak to somebody who sends an image.
_REASONS = {
    "empty_body": "empty",
    "corrupt_image": "truncated, corrupt or with an unsupported feature",
    "image_too_large": "more bytes or pixels than the service takes",
    "unsupported_image": "not an image of an accepted format",
}
NOT_AN_IMAGE = "not an image by its name"


@dataclass(frozen=True)
class CorruptFile:
    """A file that is left out: its path below the root, and why."""

    path: str
    reason: str


def find(collection: Collection, digests: Mapping[str, str], folder: Path | None = None) -> tuple[CorruptFile, ...]:
    """Return the images that do not decode, in the collection's order; ``folder`` remembers what was tried.

    Raises:
        BundleError: a file cannot be read.
    """
    reasons = _recall(folder)
    unknown = {digest: path for path, digest in digests.items() if digest not in reasons}
    if unknown:
        files = [collection.root / path for path in unknown.values()]
        tried = dict(zip(unknown, thread_map(problem, files, desc="decoding", unit="", disable=None), strict=True))
        _remember(folder, tried)
        reasons |= tried
    return tuple(CorruptFile(path, reason) for path, digest in digests.items() if (reason := reasons[digest]))


def problem(file: Path) -> str:
    """Return why an image cannot be used, in a few words; an empty string if it can."""
    try:
        decode(read(file))
    except ServiceError as error:
        return reason(error)
    return ""


def reason(error: ServiceError) -> str:
    """Return the few words that a list of files needs."""
    return _REASONS[error.code]


def refuse_any(collection: Collection, corrupt: tuple[CorruptFile, ...]) -> None:
    """Raise a BundleError for the first of the corrupt images, if there is one."""
    if corrupt:
        raise BundleError(
            f"{collection.root / corrupt[0].path} cannot be used ({corrupt[0].reason}), and with it {len(corrupt)} of "
            f"{len(collection.images)} images: repair or remove them, or leave such files out with --data.corrupt skip"
        )


def without(collection: Collection, corrupt: Iterable[CorruptFile]) -> Collection:
    """Return the collection without these images; a BundleError if a label has no other."""
    left_out = {file.path for file in corrupt}
    return replace(collection, images=tuple(p for p in collection.images if p.path not in left_out))


def save(corrupt: Iterable[CorruptFile], path: Path) -> None:
    """Write the list as CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("path", "reason"), *(astuple(file) for file in corrupt)])


def _recall(folder: Path | None) -> dict[str, str]:
    if folder is None or not (folder / MEMORY).is_file():
        return {}
    with (folder / MEMORY).open(encoding="utf-8", newline="") as file:
        return {row[0]: row[1] for row in csv.reader(file) if len(row) == 2}


def _remember(folder: Path | None, tried: Mapping[str, str]) -> None:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / MEMORY).open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(tried.items())
