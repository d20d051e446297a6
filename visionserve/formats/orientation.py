"""Orientation: the EXIF tag that says how a camera was held, and pixels turned upright."""

import numpy as np
from PIL import ExifTags, Image

_TURNED = range(2, 9)


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1-8, that `decode` undoes; loaded TIFFs are turned already, by Pillow."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - an image whose EXIF block is damaged is still an image
        return 1


def may_be_turned(file: bytes | bytearray, image: Image.Image) -> bool:
    """Whether an opened file has an orientation to undo; of a PNG, which may state it last, whether it may have one."""
    if image.format == "PNG":  # asked for its EXIF, Pillow would decode it
        return any(name in file for name in (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp"))
    return orientation(image) in _TURNED


def upright(pixels: np.ndarray, turn: int) -> np.ndarray:
    """Undo an EXIF orientation (tag 274); values outside 2-8 change nothing."""
    if turn not in _TURNED:
        return pixels
    turned = pixels.view("V3")[:, :, 0]  # (H, W), a pixel an item: copied whole, twice as fast
    if turn >= 5:
        turned = turned.T
    if turn in (3, 4, 7, 8):
        turned = turned[::-1]
    if turn in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    return np.ascontiguousarray(turned).view(np.uint8).reshape(*turned.shape, 3)
