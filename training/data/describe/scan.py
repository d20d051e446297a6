"""One pass over the images: what each file is, how large it is upright, and its perceptual hash."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image
from scipy.fft import dctn
from tqdm.contrib.concurrent import thread_map

from training.data import corrupt_files
from training.data.cache import Pixels, read
from training.data.corrupt_files import CorruptFile
from training.data.datasets import Collection, ImageFile
from visionserve.errors import ServiceError
from visionserve.images import decode

WORDS = 4  # of a perceptual hash, 64 bits each
_SMALL, _KEPT = 64, 16  # pixels of the square that is hashed; frequencies kept in each direction

Hash = npt.NDArray[np.uint64]


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
        look: its perceptual hash, (4,) uint64.
    """

    image: ImageFile
    sha256: str
    size: int
    width: int
    height: int
    format: str
    mode: str
    turned: bool
    look: Hash


def measure(collection: Collection) -> tuple[list[Measured], list[CorruptFile]]:
    """Return what the images are, in the collection's order, and those that do not decode."""

    def one(image: ImageFile) -> Measured | CorruptFile:
        return _measure(collection.root / image.path, image)

    scanned: Sequence[Measured | CorruptFile] = thread_map(one, collection.images, desc="measuring", disable=None)
    return [m for m in scanned if isinstance(m, Measured)], [b for b in scanned if isinstance(b, CorruptFile)]


def look(pixels: Pixels) -> Hash:
    """Return the perceptual hash (4,) uint64 of an (H, W, 3) image: 256 bits.

    The lowest 16 x 16 frequencies of its brightness, each above or below their median (pHash: Zauner 2010, with 256
    bits in place of 64). Copies at another size, quality or brightness differ in some tens of bits, other images
    in about 128.
    """
    grey = Image.fromarray(pixels).convert("L").resize((_SMALL, _SMALL), Image.Resampling.BOX)
    waves = dctn(np.asarray(grey, np.float32), norm="ortho")[:_KEPT, :_KEPT].ravel()
    bits = waves > np.median(waves[1:])
    bits[0] = False  # the mean brightness says nothing about the content
    return np.packbits(bits).view(np.uint64)


def _measure(file: Path, image: ImageFile) -> Measured | CorruptFile:
    data = read(file)
    try:
        pixels = decode(data)
    except ServiceError as error:
        return CorruptFile(image.path, corrupt_files.reason(error))
    with Image.open(io.BytesIO(data)) as header:
        kind, mode, turned = header.format or "", header.mode, header.getexif().get(ExifTags.Base.Orientation, 1) != 1
    height, width = pixels.shape[:2]
    digest = hashlib.sha256(data).hexdigest()
    return Measured(image, digest, len(data), width, height, kind, mode, turned, look(pixels))
