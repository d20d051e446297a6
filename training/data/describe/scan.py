"""One pass over the images: what each file is, how large it is upright, and its perceptual hash."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm.contrib.concurrent import thread_map

from training.data import corrupt_files
from training.data.cache import read
from training.data.corrupt_files import CorruptFile
from training.data.datasets import Collection, ImageFile
from training.data.duplicates import Hash, perceptual_hash
from visionserve.errors import ServiceError
from visionserve.images import decode, read_header


@dataclass(frozen=True)
class Measured:
    """One image that decodes.

    Attributes:
        image: its path, label and official split.
        sha256: of the file.
        size: of the file in bytes.
        width: in pixels, upright.
        height: in pixels, upright.
        format: Pillow's name of the file format.
        mode: Pillow's name of the colours, as stored.
        turned: its EXIF block says that it lies on its side or head, or is mirrored.
        hash: its perceptual hash, (4,) uint64.
    """

    image: ImageFile
    sha256: str
    size: int
    width: int
    height: int
    format: str
    mode: str
    turned: bool
    hash: Hash


def measure(collection: Collection) -> tuple[list[Measured], list[CorruptFile]]:
    """Return what the images are, in the collection's order, and those that do not decode."""

    def one(image: ImageFile) -> Measured | CorruptFile:
        return _measure(collection.root / image.path, image)

    scanned: Sequence[Measured | CorruptFile] = thread_map(one, collection.images, desc="measuring", disable=None)
    return [m for m in scanned if isinstance(m, Measured)], [b for b in scanned if isinstance(b, CorruptFile)]


def _measure(file: Path, image: ImageFile) -> Measured | CorruptFile:
    data = read(file)
    try:
        pixels = decode(data)
    except ServiceError as error:
        return CorruptFile(image.path, corrupt_files.reason(error))
    header = read_header(data)
    height, width = pixels.shape[:2]
    digest = hashlib.sha256(data).hexdigest()
    colours = (header.format, header.mode, header.turn != 1)
    return Measured(image, digest, len(data), width, height, *colours, perceptual_hash(pixels))
