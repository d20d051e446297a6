"""Conversion to sRGB: pixels in the space of an ICC profile -> sRGB, by Little CMS, which the first profile imports.

A profile that is broken, of another colour space than its image, or of a kind that describes no image is ignored, as
browsers do. One that moves no colour by more than two levels counts as sRGB: its pixels stay as they are.
"""

import hashlib
import io
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from visionserve.formats.limits import Deadline

if TYPE_CHECKING:
    from PIL.ImageCms import ImageCmsTransform

Mode = Literal["RGB", "L", "CMYK"]

_SPACES: dict[bytes, Mode] = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}
_CLASSES = (b"scnr", b"mntr", b"prtr", b"spac")
_GREY_MODES = ("1", "L", "LA", "I;16", "I;16B", "I;16L")
# 32-bit values have no nominal white, and Pillow converts LAB itself.
_WITHOUT_PROFILE = ("I", "F", "LAB")
_NEAR = 2  # of 255 levels
_CHUNK = 1 << 16  # pixels converted at a time
# A transform takes up to some MB (CMYK); services see few profiles.
_KEPT = 8


@dataclass(frozen=True)
class Conversion:
    """A conversion of pixels of one mode to sRGB."""

    mode: Mode
    _transform: "ImageCmsTransform"

    def convert(self, image: Image.Image) -> np.ndarray:
        """Convert an image of ``mode`` to (H, W, 3) uint8."""
        return np.asarray(self._transform.apply(image))

    def convert_in_place(self, pixels: np.ndarray, deadline: Deadline) -> None:
        """Convert (H, W, 3) uint8, in which all three values of a pixel are its grey where ``mode`` is L.

        Raises:
            ImageTooLarge: The time is over.
        """
        flat = pixels.reshape(1, -1, 3)
        for start in range(0, flat.shape[1], _CHUNK):
            deadline.check()
            chunk = flat[:, start : start + _CHUNK]
            values = chunk if self.mode == "RGB" else chunk[:, :, 0]
            chunk[:] = self.convert(Image.fromarray(np.ascontiguousarray(values)))


class _Kept:
    """The conversions of the profiles seen last, by their digests."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._conversions: OrderedDict[bytes, Conversion | None] = OrderedDict()

    def get(self, profile: bytes) -> Conversion | None:
        digest = hashlib.sha256(profile).digest()
        with self._lock:
            if digest in self._conversions:
                self._conversions.move_to_end(digest)
                return self._conversions[digest]
        conversion = _conversion(profile)
        with self._lock:
            self._conversions[digest] = conversion
            while len(self._conversions) > self._most:
                self._conversions.popitem(last=False)
        return conversion


_kept = _Kept(_KEPT)


def conversion_for(profile: bytes | None, mode: str) -> Conversion | None:
    """Return how to convert an image of one of Pillow's modes that has this profile; None where it is sRGB."""
    if profile is None or _SPACES.get(profile[16:20]) not in _profile_modes(mode):
        return None
    return _kept.get(profile)


def _profile_modes(mode: str) -> tuple[Mode, ...]:
    """Return the modes that the profile of an image may have; a grey image may be one of RGB whose values are equal."""
    if mode in _WITHOUT_PROFILE:
        return ()
    if mode == "CMYK":
        return ("CMYK",)
    return ("L", "RGB") if mode in _GREY_MODES else ("RGB",)


def _conversion(profile: bytes) -> Conversion | None:
    if profile[12:16] not in _CLASSES or profile[36:40] != b"acsp":
        return None
    from PIL import ImageCms

    mode = _SPACES[profile[16:20]]
    target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        conversion = Conversion(mode, ImageCms.ImageCmsTransform(source, target, mode, "RGB"))
        return conversion if _moves_colours(conversion) else None
    except (OSError, ValueError, MemoryError, ImageCms.PyCMSError):  # broken
        return None


def _moves_colours(conversion: Conversion) -> bool:
    if conversion.mode == "CMYK":
        return True
    levels = np.linspace(0, 255, 17 if conversion.mode == "RGB" else 256).round().astype(np.uint8)
    colours = [levels] * 3 if conversion.mode == "RGB" else [levels]
    grid = np.stack(np.meshgrid(*colours, indexing="ij"), axis=-1).reshape(1, -1, len(colours))
    converted = conversion.convert(Image.fromarray(grid if len(colours) == 3 else grid[:, :, 0]))
    return int(np.abs(converted.astype(int) - grid).max()) > _NEAR
