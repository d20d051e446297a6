"""The images that a load test sends: synthetic ones, the same bytes every time, or those of a folder.

Synthetic ones look like flowers with the grain of a camera, so that their JPEGs are as large as real ones: about 50 KB
at 500 x 333, 270 KB at 1200 x 900, 2.8 MB at 4000 x 3000.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

# visionserve.files.IMAGE_SUFFIXES, which the container of the load test lacks; a test holds the two equal.
IMAGE_SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".webp",
    ".heic",
    ".heif",
    ".avif",
    ".gif",
    ".bmp",
    ".tif",
    ".tiff",
)
# Width x height: share of the requests. Mostly what a page uploads, some phone previews, a few originals.
MIXED: Mapping[tuple[int, int], float] = {(500, 333): 0.7, (1200, 900): 0.25, (4000, 3000): 0.05}
_QUALITY = 85
_GRAIN = 7.0
_COLOURS = ((235, 200, 40), (220, 60, 90), (150, 90, 200), (245, 245, 240), (240, 130, 40), (90, 110, 220))


@dataclass(frozen=True)
class EncodedImage:
    """An encoded image; ``weight`` is how often it is sent relative to others, ``label`` what it shows, if known."""

    name: str
    body: bytes
    weight: float = 1.0
    label: str | None = None


def synthetic_images(sizes: Mapping[tuple[int, int], float], per_size: int = 4) -> list[EncodedImage]:
    """Return synthetic JPEGs.

    Args:
        sizes: share of the requests by (width, height).
        per_size: how many of each size; half as many above two megapixels, where each takes a second to make.
    """
    images = []
    for (width, height), share in sizes.items():
        count = per_size if width * height < 2_000_000 else max(1, per_size // 2)
        for seed in range(count):
            image_bytes = encode_jpeg(synthetic_image(width, height, seed))
            images.append(EncodedImage(f"synthetic-{width}x{height}-{seed}", image_bytes, share / count))
    return images


def parse_sizes(text: str) -> dict[tuple[int, int], float]:
    """Read ``WIDTHxHEIGHT[:SHARE],...``; ValueError says what cannot be read."""
    sizes = {}
    for entry in text.split(","):
        size, _, share = entry.partition(":")
        width, _, height = size.partition("x")
        try:
            sizes[int(width), int(height)] = float(share or 1)
        except ValueError:
            raise ValueError(f"sizes are WIDTHxHEIGHT:SHARE,..., not {entry!r}") from None
    return sizes


def read_images(folder: Path, labels: Path | None = None, at_most: int = 64) -> list[EncodedImage]:
    """Read images from a folder.

    Args:
        labels: a CSV file of ``file,label`` lines; without it the name of an image's own sub-folder is its label.
        at_most: of more images, this many are used, evenly spaced over the sorted names.

    Raises:
        ValueError: the folder has none.
    """
    paths = sorted(path for path in folder.rglob("*") if path.name.lower().endswith(IMAGE_SUFFIXES) and path.is_file())
    if not paths:
        raise ValueError(f"{folder} contains no images ({', '.join(IMAGE_SUFFIXES)})")
    if len(paths) > at_most:
        paths = [paths[i * len(paths) // at_most] for i in range(at_most)]
    names = [path.relative_to(folder).as_posix() for path in paths]
    label_of = _read_labels(labels) if labels else _folder_names(folder, paths)
    return [
        EncodedImage(name, path.read_bytes(), label=label_of.get(name, label_of.get(path.name)))
        for name, path in zip(names, paths, strict=True)
    ]


def synthetic_image(width: int, height: int, seed: int) -> np.ndarray:
    """Return flowers in front of leaves: (height, width, 3) uint8, RGB."""
    rng = np.random.default_rng((seed, width, height))
    image = _leaves(width, height, rng)
    for _ in range(rng.integers(1, 4)):
        _flower(image, rng)
    grain = rng.standard_normal((height, width, 1), dtype=np.float32) * np.float32(_GRAIN)
    pixels: np.ndarray = np.clip(image + grain, 0, 255).astype(np.uint8)
    return pixels


def encode_jpeg(pixels: np.ndarray) -> bytes:
    """Return (H, W, 3) uint8 as a JPEG."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()


def _leaves(width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """Return soft greens with finer veins over them: (height, width, 3) float32."""
    image = np.zeros((height, width, 3), np.float32)
    for cells, strength in ((6, 90.0), (40, 35.0), (160, 18.0)):
        small = (rng.random((cells, cells)) * 255).astype(np.uint8)
        large = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        tint = np.array([0.45, 1.0, 0.3], np.float32)
        image += (np.asarray(large, np.float32)[..., None] / 255 - 0.3) * np.float32(strength) * tint
    return image + np.array([25, 45, 15], np.float32)


def _flower(image: np.ndarray, rng: np.random.Generator) -> None:
    """Paint one flower into (H, W, 3) float32, in place: petals by a rose curve, shaded, around a darker disc."""
    height, width = image.shape[:2]
    radius = float(rng.uniform(0.22, 0.42)) * min(height, width)
    x, y = rng.uniform(0.25, 0.75) * width, rng.uniform(0.25, 0.75) * height
    rows = slice(max(0, int(y - radius)), min(height, int(y + radius) + 1))
    columns = slice(max(0, int(x - radius)), min(width, int(x + radius) + 1))
    down = (np.arange(rows.start, rows.stop, dtype=np.float32) - np.float32(y))[:, None]
    right = (np.arange(columns.start, columns.stop, dtype=np.float32) - np.float32(x))[None, :]
    distance = np.hypot(down, right) / np.float32(radius)  # (h, w)
    angle = np.arctan2(down, right)
    petals = int(rng.integers(5, 13))
    edge = 0.55 + 0.45 * np.abs(np.cos(petals * angle / 2))
    shade = (0.55 + 0.45 * np.cos(math.pi * distance) ** 2 + 0.1 * np.cos(petals * 4 * angle))[..., None]
    colour = np.array(_COLOURS[rng.integers(len(_COLOURS))], np.float32)
    part = image[rows, columns]
    part[distance < edge] = (shade * colour)[distance < edge]
    part[distance < 0.22] = np.array([95, 65, 25], np.float32)


def _read_labels(path: Path) -> dict[str, str]:
    with path.open(encoding="utf-8", newline="") as stream:
        return {row[0]: row[1] for row in csv.reader(stream) if len(row) >= 2}


def _folder_names(folder: Path, paths: Sequence[Path]) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.parent.name for path in paths if path.parent != folder}
