"""Images that look the same: perceptual hashes, and the pairs that differ in few of their bits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.fft import dctn

from training.data.cache import Pixels

# Of 256 bits. Looked at on Oxford 102: up to here nearly every pair shows one scene; from 76 on chance begins to match
# single flowers on black. Two images that have nothing in common differ in 128 bits, give or take 8.
DISTANCE = 72
WORDS = 4  # of a perceptual hash, 64 bits each
_SMALL, _KEPT = 64, 16  # pixels of the square that is hashed; frequencies kept in each direction
_BLOCK = 512  # images compared with all others at a time

Hash = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Pair:
    """Two images that look the same: their indices, and the bits that differ."""

    one: int
    other: int
    distance: int


def perceptual_hash(pixels: Pixels) -> Hash:
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


def near(hashes: Sequence[Hash], distance: int = DISTANCE) -> tuple[list[Pair], np.ndarray]:
    """Return the pairs at most ``distance`` bits apart, nearest first, and each image's distance to its nearest.

    Every pair is compared, a block of rows at a time.
    """
    count = len(hashes)
    looks: Hash = np.stack(list(hashes)) if count else np.empty((0, WORDS), np.uint64)
    nearest = np.full(count, 64 * WORDS, np.int16)
    pairs: list[Pair] = []
    for first in range(0, count, _BLOCK):
        rows = looks[first : first + _BLOCK]
        apart = sum(
            np.bitwise_count(rows[:, None, word] ^ looks[None, :, word]).astype(np.int16) for word in range(WORDS)
        )
        apart[np.arange(len(rows)), np.arange(first, first + len(rows))] = 64 * WORDS  # itself
        nearest[first : first + len(rows)] = apart.min(1, initial=64 * WORDS)
        close = np.argwhere(apart <= distance) + np.array([first, 0])
        pairs += [Pair(a, b, int(apart[a - first, b])) for a, b in close.tolist() if a < b]
    return sorted(pairs, key=lambda pair: (pair.distance, pair.one, pair.other)), nearest
