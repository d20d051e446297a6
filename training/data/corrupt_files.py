"""Images that cannot be used: corrupt before training by decoding every one as the service would, listed, left out.

What was found is remembered by the bytes' SHA-256, so that an image is tried once and not once a run.
"""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from tqdm.contrib.concurrent import thread_map

from training.data.cache import decoder_key, read
from training.data.datasets import Collection, is_hidden
from training.data.duplicates import WORDS, Hash, perceptual_hash
from visionserve.errors import BundleError, ServiceError
from visionserve.files import is_image
from visionserve.images import decode

FILE_NAME = "corrupt.csv"
# The service's messages speak to somebody who sends an image.
_REASONS = {
    "empty_body": "empty",
    "corrupt_image": "truncated, corrupt or with an unsupported feature",
    "image_too_large": "more bytes or pixels than the service takes",
    "unsupported_image": "not an image of an accepted format",
}
UNLISTED = "not in the list of labels"
NOT_AN_IMAGE, HIDDEN = "not an image by its name", "hidden"
_NAMED = 3  # corrupt files in a message; `data describe` lists all of them
_UNREAD = (".jxl", ".jp2", ".psd", ".svg", ".cr2", ".nef", ".arw", ".dng", ".raw")


@dataclass(frozen=True)
class CorruptFile:
    """A file that is left out: its path below the root, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Scan:
    """What decoding showed: the images that cannot be used, and path -> perceptual hash of the others."""

    corrupt: tuple[CorruptFile, ...]
    hashes: dict[str, Hash]


def scan(collection: Collection, digests: Mapping[str, str], folder: Path | None = None) -> Scan:
    """Decode the images, in the collection's order; ``folder`` remembers what was decoded.

    Raises:
        BundleError: a file cannot be read.
    """
    outcomes = _recall(folder)
    unknown = {digest: path for path, digest in digests.items() if digest not in outcomes}
    if unknown:
        files = [collection.root / path for path in unknown.values()]
        decoded = dict(zip(unknown, thread_map(_decode, files, desc="decoding", unit="", disable=None), strict=True))
        _remember(folder, decoded)
        outcomes |= decoded
    by_path = {path: outcomes[digest] for path, digest in digests.items()}
    corrupt = tuple(CorruptFile(path, reason) for path, (reason, _) in by_path.items() if reason)
    hashes = {
        path: np.frombuffer(bytes.fromhex(text), np.uint64) for path, (reason, text) in by_path.items() if not reason
    }
    return Scan(corrupt, hashes)


def reason_of_name(path: str) -> str:
    """Return why a file that was not taken for an image was left out, from its path alone."""
    parts = PurePosixPath(path)
    if any(is_hidden(part) for part in parts.parts):
        return HIDDEN
    if is_image(path):
        return UNLISTED
    suffix = parts.suffix.lower()
    return f"{suffix} is not read: save it as JPEG or PNG" if suffix in _UNREAD else NOT_AN_IMAGE


def _decode(file: Path) -> tuple[str, str]:
    """Return why an image cannot be used, in a few words, or an empty string and its perceptual hash."""
    try:
        return "", perceptual_hash(decode(read(file))).tobytes().hex()
    except ServiceError as error:
        return reason(error), ""


def reason(error: ServiceError) -> str:
    """Return the few words that a list of files needs."""
    return _REASONS[error.code]


def refuse_any(collection: Collection, corrupt: tuple[CorruptFile, ...]) -> None:
    """Raise a BundleError that names the first corrupt images, if there are any."""
    if corrupt:
        some = ", ".join(f"{collection.root / file.path} ({file.reason})" for file in corrupt[:_NAMED])
        more = len(corrupt) - _NAMED
        raise BundleError(
            f"{len(corrupt)} of {len(collection.images)} images cannot be used: "
            f"{some}{f' and {more} more' if more > 0 else ''}. "
            "Repair or remove them, or leave such files out with --data.corrupt skip"
        )


def without(collection: Collection, corrupt: Iterable[CorruptFile]) -> Collection:
    """Return the collection without these images; a BundleError if a label has no other."""
    left_out = {file.path for file in corrupt}
    return replace(collection, images=tuple(p for p in collection.images if p.path not in left_out))


def save(corrupt: Iterable[CorruptFile], path: Path) -> None:
    """Write the list as CSV."""
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("path", "reason"), *(astuple(file) for file in corrupt)])


def _memory(folder: Path) -> Path:
    """Return the file that remembers: rows of sha256, reason, perceptual hash; of another decoder, another file."""
    return folder / f"decoded-{decoder_key()}.csv"


def _recall(folder: Path | None) -> dict[str, tuple[str, str]]:
    if folder is None or not _memory(folder).is_file():
        return {}
    with _memory(folder).open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.reader(file) if len(row) == 3]
    return {digest: (reason, text) for digest, reason, text in rows if reason or len(text) == 16 * WORDS}


def _remember(folder: Path | None, decoded: Mapping[str, tuple[str, str]]) -> None:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        with _memory(folder).open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows((digest, *outcome) for digest, outcome in decoded.items())
