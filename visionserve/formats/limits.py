"""Limits of one image: bytes, pixels, the memory and the time of its decoder; all but the last from its header."""

import io
import time
from dataclasses import dataclass

from visionserve.errors import EmptyBody, ImageTooLarge

# CPU time of one thread. Decoders in C that get a whole file at once are bounded by pixels and headers alone.
MAX_DECODE_S = 3.0


@dataclass(frozen=True)
class Limits:
    """What a file may cost: its own bytes, its pixels as its header states them, and what its decoder will hold.

    ``max_memory`` bounds the last of them, in bytes, where the image may be decoded at a reduced size, as in serving;
    the launcher's plan has as much for every worker.
    """

    max_bytes: int = 10 * 1024 * 1024
    max_pixels: int = 50_000_000
    max_memory: int = 165_000_000

    def check_bytes(self, size: int) -> None:
        """Refuse an empty file, and one of too many bytes."""
        if size == 0:
            raise EmptyBody("The body is empty: send the bytes of an image file.")
        if size > self.max_bytes:
            raise ImageTooLarge(
                f"The file has {size:,} bytes; at most {self.max_bytes:,} are accepted: send a smaller one."
            )

    def check_pixels(self, width: int, height: int) -> None:
        """Refuse an image of too many pixels."""
        if width * height > self.max_pixels:
            raise ImageTooLarge(
                f"The image has {width:,} x {height:,} pixels; at most {self.max_pixels:,} are accepted: scale it down."
            )


@dataclass(frozen=True)
class Plan:
    """How an opened file will be decoded: by how much it is reduced, and what that may cost."""

    size: tuple[int, int]
    turned: bool
    limits: Limits
    min_side: int | None

    @property
    def factor(self) -> int:
        """By how much the image may be reduced: 1, 2, 4 or 8."""
        scale = min(self.size) // self.min_side if self.min_side else 1
        return max(factor for factor in (1, 2, 4, 8) if factor == 1 or factor <= scale)

    def check_memory(self, held: float, result: float) -> None:
        """Refuse an image whose decoder would hold ``held`` bytes beside a result of ``result`` bytes."""
        needed = held + result * (1 + self.turned)
        if self.min_side is not None and needed > self.limits.max_memory:
            raise ImageTooLarge(
                f"The image would take {needed / 1e6:.0f} MB to decode; at most {self.limits.max_memory / 1e6:.0f} are "
                "available: scale it down or send it as a baseline JPEG."
            )


class Deadline:
    """The end of the CPU time that this thread may spend on one image."""

    def __init__(self) -> None:
        self._end = time.thread_time() + MAX_DECODE_S

    def check(self) -> None:
        """Refuse the image when its time is over."""
        if time.thread_time() > self._end:
            raise ImageTooLarge("The image takes too long to decode: re-save it as a baseline JPEG and send that.")


class Timed(io.BytesIO):
    """A file that ends decoding when it takes too long: Pillow's decoders in Python read it piece by piece."""

    def __init__(self, file: bytes | bytearray, deadline: Deadline) -> None:
        super().__init__(file)
        self._deadline = deadline

    def read(self, size: int | None = -1, /) -> bytes:
        """Read like any file, while there is time."""
        self._deadline.check()
        return super().read(size)
