"""Decoded images on disk, memory-mapped: each JPEG is decoded once per manifest, not once per epoch.

The decoder is the one that serves; when it changes, images are decoded again. Files: ``<key>.pixels`` (all images end
to end, H x W x 3 uint8) and ``<key>.index.npy`` (one row of offset, height, width per image).
"""

import functools
import hashlib
import logging
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL
import torch
import torchvision
from torchvision.transforms.v2 import functional

from training.data.manifest import Manifest
from training.machine import memory
from visionserve import formats, images
from visionserve.errors import BundleError, ServiceError
from visionserve.files import atomic_write, read_regular
from visionserve.images import decode

Pixels = npt.NDArray[np.uint8]
_log = logging.getLogger(__name__)


class Cache:
    """All images of a manifest as (H, W, 3) uint8 arrays, shorter side at most ``side`` pixels."""

    def __init__(self, pixels: Path, index: Path) -> None:
        self._files = pixels, index
        self._pixels: Pixels = np.memmap(pixels, np.uint8, mode="r")
        self._index = np.load(index)

    def __reduce__(self) -> tuple[type["Cache"], tuple[Path, Path]]:
        """Give another process the files' names: NumPy would send it all pixels."""
        return Cache, self._files

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> Pixels:
        """Return the image of the manifest's row ``index``, read-only."""
        offset, height, width = (int(value) for value in self._index[index])
        return self._pixels[offset : offset + height * width * 3].reshape(height, width, 3)

    @property
    def size(self) -> int:
        """Bytes on disk, and in memory once all of it has been read."""
        return self._pixels.size


class Files:
    """The same images, to the pixel, decoded again each time one is requested."""

    def __init__(self, manifest: Manifest, side: int) -> None:
        self._manifest, self._side = manifest, side

    def __len__(self) -> int:
        return len(self._manifest.rows)

    def __getitem__(self, index: int) -> Pixels:
        """Return the image of the manifest's row ``index``."""
        return _decode(self._manifest.root / self._manifest.rows[index].path, self._side)


def open_cache(manifest: Manifest, folder: Path, side: int) -> Cache:
    """Return the manifest's cache below ``folder``, decoding the images first if it is not there."""
    stem = folder / f"{manifest.digest[:16]}-{side}-{decoder_key()}"
    pixels, index = stem.with_suffix(".pixels"), stem.with_suffix(".index.npy")
    if not index.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _log.info("decoding %d images to %s", len(manifest.rows), pixels)
        _write(manifest, side, pixels, index)
    cache = Cache(pixels, index)
    if cache.size > memory():
        _log.warning("%s does not fit into memory: `--data.cache false` may be faster, a profile shows it", pixels)
    return cache


@functools.cache
def decoder_key() -> str:
    """Return 8 hexadecimal digits for all that turns a file into pixels: the code, and the versions of libraries."""
    modules = [Path(__file__), Path(images.__file__), *sorted(Path(formats.__path__[0]).glob("*.py"))]
    code = [path.read_bytes() for path in modules]
    versions = f"{torchvision.__version__} {PIL.__version__} {version('pillow-heif')}".encode()
    return hashlib.sha256(b"\0".join([*code, versions])).hexdigest()[:8]


def read(path: Path) -> bytes:
    """Return an image's bytes; a BundleError if it cannot be read."""
    try:
        return read_regular(path)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error


def _write(manifest: Manifest, side: int, pixels: Path, index: Path) -> None:
    entries, offset = [], 0
    with atomic_write(pixels) as unfinished, unfinished.open("wb") as file:
        for row in manifest.rows:
            image = _decode(manifest.root / row.path, side)
            file.write(image.tobytes())
            entries.append((offset, *image.shape[:2]))
            offset += image.size
    with atomic_write(index) as unfinished:
        np.save(unfinished, np.array(entries, np.int64))  # last: its presence says that the cache is complete


def _decode(path: Path, side: int) -> Pixels:
    try:
        image = decode(read(path), min_side=side)
    except ServiceError as error:
        raise BundleError(f"{path} cannot be used: {error.message}") from error
    if min(image.shape[:2]) <= side:
        return image
    planes = functional.resize(torch.from_numpy(image).permute(2, 0, 1), [side], antialias=True)
    return np.ascontiguousarray(planes.permute(1, 2, 0).numpy())
