"""Photographs side by side: some of every label, and the twins. For the eye; they belong to whoever owns the data."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from random import Random

from PIL import Image, ImageDraw, ImageFont, ImageOps

from training.data.cache import read
from training.data.describe.duplicates import Pair
from training.data.describe.scan import Measured
from visionserve.images import decode

SIDE = 92  # of a sample, pixels
TWIN = 150
MOST_TWINS = 60  # pairs that are shown, nearest first
_GAP, _TEXT = 6, 20
_INK, _PAPER = "#263238", "white"


def samples(root: Path, photographs: Sequence[Measured], labels: Sequence[str], path: Path) -> None:
    """Write a row of photographs for every label, chosen at random, the same ones every time."""
    by_label: dict[str, list[str]] = defaultdict(list)
    for measured in photographs:
        by_label[measured.photograph.label].append(measured.photograph.path)
    shown = [label for label in labels if by_label[label]]
    columns, each = (1, 10) if len(shown) <= 12 else (2, 6) if len(shown) <= 40 else (3, 5)
    rows = -(-len(shown) // columns)
    cell_width, cell_height = each * (SIDE + 2) + 2 * _GAP, SIDE + _TEXT + _GAP
    sheet = Image.new("RGB", (columns * cell_width + _GAP, rows * cell_height + _GAP), _PAPER)
    for place, label in enumerate(shown):
        left, top = place // rows * cell_width + _GAP, place % rows * cell_height + _GAP
        _write(sheet, (left, top), f"{label}  {len(by_label[label])}")
        chosen = Random(label).sample(by_label[label], min(each, len(by_label[label])))  # noqa: S311  # no secret
        for number, name in enumerate(chosen):
            sheet.paste(_square(root / name, SIDE), (left + number * (SIDE + 2), top + _TEXT))
    sheet.save(path, quality=88)


def pairs(root: Path, found: Sequence[Pair], photographs: Sequence[Measured], path: Path) -> None:
    """Write the nearest pairs, each with its distance and its labels, or its label if they agree."""
    drawn = found[:MOST_TWINS]
    columns = min(4, len(drawn))
    cell_width, cell_height = 2 * (TWIN + 2) + 2 * _GAP, TWIN + _TEXT + _GAP
    rows = -(-len(drawn) // columns)
    sheet = Image.new("RGB", (columns * cell_width + _GAP, rows * cell_height + _GAP), _PAPER)
    for place, pair in enumerate(drawn):
        both = [photographs[number].photograph for number in (pair.one, pair.other)]
        left, top = place % columns * cell_width + _GAP, place // columns * cell_height + _GAP
        said = " / ".join(dict.fromkeys(photograph.label for photograph in both))
        _write(sheet, (left, top), f"{pair.distance}  {said}")
        for number, photograph in enumerate(both):
            sheet.paste(_whole(root / photograph.path, TWIN), (left + number * (TWIN + 2), top + _TEXT))
    sheet.save(path, quality=88)


def _square(file: Path, side: int) -> Image.Image:
    return ImageOps.fit(Image.fromarray(decode(read(file), min_side=side)), (side, side))


def _whole(file: Path, side: int) -> Image.Image:
    return ImageOps.pad(Image.fromarray(decode(read(file), min_side=side)), (side, side), color="#eceff1")


def _write(sheet: Image.Image, place: tuple[int, int], text: str) -> None:
    ImageDraw.Draw(sheet).text(place, text, fill=_INK, font=ImageFont.load_default(13))
