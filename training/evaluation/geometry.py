"""Coordinates: from the network's input to the file as stored, and back.

    file as stored -> (reduced decode) -> upright -> central square -> size x size pixels

Positions are (x, y) with the origin in the upper left corner, whole numbers between pixels: a pixel's centre is n +
0.5.
"""

from dataclasses import dataclass

import numpy as np

from visionserve.images import decode, read_header
from visionserve.transforms import Preprocessing

Position = tuple[float, float]


@dataclass(frozen=True)
class View:
    """The way from a file's pixels to the network's.

    Attributes:
        preprocessing: what cuts the square and resizes it.
        decoded: (height, width) in pixels after decoding, upright.
        stored: (width, height) in pixels as the file has them.
        turn: the file's EXIF orientation, 1-8.
    """

    preprocessing: Preprocessing
    decoded: tuple[int, int]
    stored: tuple[int, int]
    turn: int

    def to_file(self, position: Position) -> Position:
        """Return where a position of the network's input is in the file as stored."""
        (left, top), step = self._square()
        x, y = left + position[0] * step, top + position[1] * step
        width, height = self._upright()
        if self.turn in (2, 3, 6, 7):
            x = width - x
        if self.turn in (3, 4, 7, 8):
            y = height - y
        return (y, x) if self.turn >= 5 else (x, y)

    def to_input(self, position: Position) -> Position:
        """Return where a position of the file as stored is in the network's input; it may lie outside of it."""
        x, y = position[::-1] if self.turn >= 5 else position
        width, height = self._upright()
        if self.turn in (2, 3, 6, 7):
            x = width - x
        if self.turn in (3, 4, 7, 8):
            y = height - y
        (left, top), step = self._square()
        return (x - left) / step, (y - top) / step

    def _upright(self) -> tuple[int, int]:
        """Return (width, height) of the whole image, upright."""
        return self.stored[::-1] if self.turn >= 5 else self.stored

    def _square(self) -> tuple[Position, float]:
        """Return the square's corner and the side of an input pixel, in pixels of the whole image, upright."""
        top, left, side = self.preprocessing.square(*self.decoded)
        scale = self._upright()[0] / self.decoded[1]
        return (left * scale, top * scale), side * scale / self.preprocessing.size


def look(data: bytes, preprocessing: Preprocessing) -> tuple[np.ndarray, View]:
    """Return the network's input (S, S, 3) uint8 of an image file, as it is served, and the view.

    Raises:
        ServiceError: the file cannot be decoded.
    """
    image = decode(data, min_side=preprocessing.min_side)
    header = read_header(data)
    height, width = image.shape[:2]
    return preprocessing(image), View(preprocessing, (height, width), header.size, header.turn)
