"""The workload: which body is sent next, images by their weight and a share of invalid bodies; its options.

Invalid bodies are what clients send by mistake or in malice: every service must reject each of them with a 4xx.
"""

import argparse
import bisect
import itertools
import random
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from loadtests.load.images import MIXED, EncodedImage, parse_sizes, read_images, synthetic_images
from loadtests.load.shapes import Seed, random_stream

_MIXED = ",".join(f"{width}x{height}:{share}" for (width, height), share in MIXED.items())


@dataclass(frozen=True)
class Item:
    """One body to send; ``expected`` is the label that it must get, None where any will do."""

    name: str
    body: bytes
    expected: str | None = None
    invalid: bool = False


class Workload:
    """An endless, reproducible sequence of items."""

    def __init__(
        self,
        images: Sequence[EncodedImage],
        expected: Mapping[str, str] | None = None,
        invalid_share: float = 0.0,
        seed: Seed = 0,
        process: int = 0,
    ) -> None:
        """Mix images and invalid bodies.

        Args:
            expected: the label that each image must get, by the image's name.
            invalid_share: of all bodies, 0-1.
            process: each of several generators gets an order of its own.

        Raises:
            ValueError: no images, or a share out of range.
        """
        if not images:
            raise ValueError("a workload needs at least one image")
        if not 0 <= invalid_share < 1:
            raise ValueError(f"the share of invalid bodies must be in [0, 1), not {invalid_share}")
        labels = expected or {}
        self._valid = [Item(image.name, image.body, labels.get(image.name)) for image in images]
        self._weights = list(itertools.accumulate(image.weight for image in images))
        self._invalid = [Item(kind, body, invalid=True) for kind, body in invalid_bodies(images[0].body).items()]
        self._invalid_share = invalid_share
        self._rng = random_stream(seed, "workload", process)

    def next(self) -> Item:
        """Return the next item."""
        if self._invalid_share and self._rng.random() < self._invalid_share:
            return self._invalid[self._rng.integers(len(self._invalid))]
        return self._valid[bisect.bisect_right(self._weights, self._rng.random() * self._weights[-1])]

    @property
    def items(self) -> list[Item]:
        """Everything that can be sent, each once."""
        return [*self._valid, *(self._invalid if self._invalid_share else [])]


def invalid_bodies(jpeg: bytes) -> dict[str, bytes]:
    """Return a body for each kind of mistake; ``jpeg`` is a valid image to damage."""
    return {
        "empty": b"",
        "text": b"this is not an image\n" * 20,
        "noise": random.Random(7).randbytes(4096),
        "header only": jpeg[:64],
        "truncated": jpeg[: len(jpeg) // 3],
        "gigapixel": _gigapixel_png(),
        "markup": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
    }


class Parser(Protocol):
    """argparse's parser, or Locust's, which has the same form."""

    def add_argument_group(self, title: str) -> argparse._ArgumentGroup:
        """Return a group to add options to."""
        ...


def add_arguments(parser: Parser) -> None:
    """Declare what is sent: the options that `python -m loadtests run` and the locustfile share."""
    group = parser.add_argument_group("what is sent")
    group.add_argument("--images", help="a folder of images; default: synthetic ones")
    group.add_argument("--labels", help="CSV of file,label; default: the names of the images' sub-folders, if any")
    group.add_argument("--sizes", default=_MIXED, help="of synthetic images: WIDTHxHEIGHT:SHARE,... (%(default)s)")
    group.add_argument(
        "--invalid", type=float, default=0.0, metavar="SHARE", help="share of invalid bodies, 0-1; each must get a 4xx"
    )
    group.add_argument(
        "--header", action="append", default=[], metavar="'Name: value'", help="to send with each request"
    )
    group.add_argument("--seed", type=int, default=0, help="of the order of images and of the arrival times")
    group.add_argument("--timeout-s", type=float, default=10.0, help="an answer that takes longer is a failure")
    group.add_argument("--allow-remote", action="store_true", help="load another machine than this one")


def load_images(args: argparse.Namespace) -> list[EncodedImage]:
    """Return the images that the options ask for; ValueError says what is wrong with them."""
    if args.images:
        return read_images(Path(args.images), Path(args.labels) if args.labels else None)
    return synthetic_images(parse_sizes(args.sizes))


def _gigapixel_png() -> bytes:
    """Return a few bytes that declare 60,000 x 60,000 pixels: decoding them would take 10 GB."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + _chunk(b"IDAT", zlib.compress(bytes(1024))) + _chunk(b"IEND", b"")


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
