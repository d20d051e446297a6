"""Images side by side: some of every label, and the duplicates. The images belong to the owner of the data."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from random import Random

from PIL import Image, ImageDraw, ImageFont, ImageOps

from training.data.cache import read
from training.data.describe.scan import Measured
from training.data.duplicates import Pair
from visionserve.images import decode

SIDE = 92  # of a sample, pixels
DUPLICATE = 150
MOST_PAIRS = 60  # pairs that are shown, nearest first
_GAP, _TEXT = 6, 20
_INK, _PAPER = "#263238", "white"


def samples(root: Path, images: Sequence[Measured], labels: Sequence[str], path: Path) -> None:
    """Write a row of images for every label, sample at random, the same ones every time."""
    by_label: dict[str, list[str]] = defaultdict(list)
    for measured in images:
        by_label[measured.image.label].append(measured.image.path)
    shown = [label for label in labels if by_label[label]]
    columns, each = (1, 10) if len(shown) <= 12 else (2, 6) if len(shown) <= 40 else (3, 5)
    rows = -(-len(shown) // columns)
    cell_width, cell_height = each * (SIDE + 2) + 2 * _GAP, SIDE + _TEXT + _GAP
    sheet = Image.new("RGB", (columns * cell_width + _GAP, rows * cell_height + _GAP), _PAPER)
    for index, label in enumerate(shown):
        left, top = index // rows * cell_width + _GAP, index % rows * cell_height + _GAP
        _write(sheet, (left, top), f"{label}  {len(by_label[label])}")
        sample = Random(label).sample(by_label[label], min(each, len(by_label[label])))  # noqa: S311  # no secret
        for number, name in enumerate(sample):
            sheet.paste(_square(root / name, SIDE), (left + number * (SIDE + 2), top + _TEXT))
    sheet.save(path, quality=88)


def pairs(root: Path, duplicates: Sequence[Pair], images: Sequence[Measured], path: Path) -> None:
    """Write the nearest pairs, each with its distance and its labels, or its label if they agree."""
    drawn = duplicates[:MOST_PAIRS]
    columns = min(4, len(drawn))
    cell_width, cell_height = 2 * (DUPLICATE + 2) + 2 * _GAP, DUPLICATE + _TEXT + _GAP
    rows = -(-len(drawn) // columns)
    sheet = Image.new("RGB", (columns * cell_width + _GAP, rows * cell_height + _GAP), _PAPER)
    for index, pair in enumerate(drawn):
        both = [images[number].image for number in (pair.one, pair.other)]
        left, top = index % columns * cell_width + _GAP, index // columns * cell_height + _GAP
        labels = " / ".join(dict.fromkeys(image.label for image in both))
        _write(sheet, (left, top), f"{pair.distance}  {labels}")
        for number, image in enumerate(both):
            sheet.paste(_whole(root / image.path, DUPLICATE), (left + number * (DUPLICATE + 2), top + _TEXT))
    sheet.save(path, quality=88)


def _square(file: Path, side: int) -> Image.Image:
    return ImageOps.fit(Image.fromarray(decode(read(file), min_side=side)), (side, side))


def _whole(file: Path, side: int) -> Image.Image:
    return ImageOps.pad(Image.fromarray(decode(read(file), min_side=side)), (side, side), color="#eceff1")


def _write(sheet: Image.Image, position: tuple[int, int], text: str) -> None:
    ImageDraw.Draw(sheet).text(position, text, fill=_INK, font=ImageFont.load_default(13))
