"""ICC profiles, and numpy's arithmetic for the same spaces, written down from their standards."""

import struct
from typing import Any

import numpy as np

from visionserve.formats import rgb_spaces


def gamma_curve(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))


D65, D50 = (0.3127, 0.3290), (0.3457, 0.3585)
DISPLAY_P3: Any = rgb_spaces.from_code_points(12, 13)
ADOBE_RGB = rgb_spaces.adobe_rgb()
PROPHOTO = rgb_spaces.profile((0.734699, 0.265301, 0.159597, 0.840403, 0.036598, 0.000105, *D50), gamma_curve(1.8))
GREY_1_8 = rgb_spaces.grey_profile(gamma_curve(1.8))
GREY_2_2 = rgb_spaces.grey_profile(gamma_curve(2.2))
SRGB = rgb_spaces.profile(rgb_spaces._SRGB, rgb_spaces._srgb())
# Linear Display P3 -> linear sRGB, both with a white of D65: CSS Color 4, section 10.
_P3_TO_SRGB = np.array(
    [[1.2249401, -0.2249402, 0.0], [-0.0420569, 1.0420571, 0.0], [-0.0196376, -0.0786361, 1.0982735]]
)
_ADOBE_TO_SRGB = np.array([[1.3982832, -0.3982831, 0.0], [0.0, 1.0, 0.0], [0.0, -0.0429383, 1.0429383]])


def _light(shade: np.ndarray) -> np.ndarray:
    return np.where(shade <= 0.04045, shade / 12.92, ((shade + 0.055) / 1.055) ** 2.4)


def _shade(light: np.ndarray) -> np.ndarray:
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def p3_as_srgb(pixels: np.ndarray) -> Any:
    """Convert Display P3 to sRGB, (..., 3) uint8 to float of 0-255."""
    return _shade(_light(pixels / 255) @ _P3_TO_SRGB.T) * 255


def srgb_as_p3(pixels: np.ndarray) -> Any:
    """Convert sRGB to Display P3, (..., 3) uint8 to uint8."""
    return np.rint(_shade(_light(pixels / 255) @ np.linalg.inv(_P3_TO_SRGB).T) * 255).astype(np.uint8)


def adobe_as_srgb(pixels: np.ndarray) -> np.ndarray:
    """Convert Adobe RGB to sRGB, (..., 3) uint8 to float of 0-255."""
    return _shade(((pixels / 255) ** (563 / 256)) @ _ADOBE_TO_SRGB.T) * 255


def gamma_as_srgb(values: np.ndarray, gamma: float) -> np.ndarray:
    """Convert greys of a gamma to sRGB, uint8 to float of 0-255."""
    return _shade((values / 255) ** gamma) * 255


def press(total: int = 2) -> bytes:
    """A CMYK profile of a table with ``total`` points an ink: each ink takes its complement away, black takes all."""
    points = np.linspace(0, 1, total)
    c, m, y, k = np.meshgrid(points, points, points, points, indexing="ij")
    # Lab of the profile connection space: lightness falls with ink, a and b tell the inks apart.
    lightness = (1 - k) * (1 - 0.3 * c - 0.35 * m - 0.1 * y) * 100
    a = (1 - k) * (-35 * c + 70 * m - 5 * y)
    b = (1 - k) * (-45 * c - 5 * m + 90 * y)
    lab = np.stack([lightness / 100 * 255, a + 128, b + 128], axis=-1)
    table = np.clip(np.rint(lab), 0, 255).astype(np.uint8).tobytes()
    curve = bytes(range(256))
    lut = (
        b"mft1"
        + bytes(4)
        + struct.pack(">BBBx", 4, 3, total)
        + struct.pack(">9i", *(65536 * np.eye(3, dtype=int).ravel()))
    )
    element = lut + curve * 4 + table + curve * 3
    element += bytes(-len(element) % 4)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    start = 128 + 4 + 24
    tags = (
        struct.pack(">I", 2)
        + struct.pack(">4sII", b"wtpt", start, 20)
        + struct.pack(">4sII", b"A2B0", start + 20, len(element))
    )
    header = struct.pack(
        ">I4xI4s4s4s12s4s28x", start + 20 + len(element), 0x02400000, b"prtr", b"CMYK", b"Lab ", bytes(12), b"acsp"
    )
    return header + struct.pack(">3i", 63190, 65536, 54061) + bytes(48) + tags + white + element


def srgb_as_adobe(pixels: np.ndarray) -> Any:
    """Convert sRGB to Adobe RGB, (..., 3) uint8 to uint8."""
    light = np.clip(_light(pixels / 255) @ np.linalg.inv(_ADOBE_TO_SRGB).T, 0, 1)
    return np.rint(light ** (256 / 563) * 255).astype(np.uint8)


def srgb_as_prophoto(pixels: np.ndarray) -> Any:
    """Convert sRGB to ProPhoto RGB, (..., 3) uint8 to uint8."""
    to_d50 = rgb_spaces._to_d50
    matrix = np.linalg.solve(
        to_d50((0.734699, 0.265301, 0.159597, 0.840403, 0.036598, 0.000105, *D50)), to_d50(rgb_spaces._SRGB)
    )
    return np.rint(np.clip(_light(pixels / 255) @ matrix.T, 0, 1) ** (1 / 1.8) * 255).astype(np.uint8)
