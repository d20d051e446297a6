"""RGB spaces that a file names by numbers instead of an ICC profile, written as ICC profiles.

Numbers: code points of ITU-T H.273 (HEIC, AVIF, the cICP chunk of PNG), a PNG's gAMA and cHRM, a camera's flag for
Adobe RGB.
"""

import struct
from collections.abc import Callable
from functools import lru_cache

import numpy as np

Chromaticities = tuple[float, ...]  # x and y of red, green, blue and white

_D65, _DCI_WHITE, _C = (0.3127, 0.3290), (0.314, 0.351), (0.310, 0.316)
_D50_XYZ = (0.9642, 1.0, 0.8249)  # white of every ICC profile
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_SMPTE_170M = (0.630, 0.340, 0.310, 0.595, 0.155, 0.070, *_D65)
# H.273, table 2; 1 (BT.709, as sRGB), 2 (unspecified) and reserved ones are missing: nothing to convert.
_PRIMARIES: dict[int, Chromaticities] = {
    4: (0.67, 0.33, 0.21, 0.71, 0.14, 0.08, *_C),
    5: (0.64, 0.33, 0.29, 0.60, 0.15, 0.06, *_D65),
    6: _SMPTE_170M,
    7: _SMPTE_170M,
    8: (0.681, 0.319, 0.243, 0.692, 0.145, 0.049, *_C),
    9: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, *_D65),
    11: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, *_DCI_WHITE),
    12: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, *_D65),
    22: (0.630, 0.340, 0.295, 0.605, 0.155, 0.077, *_D65),
}
_SRGB: Chromaticities = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, *_D65)
_ADOBE_RGB: Chromaticities = (0.64, 0.33, 0.21, 0.71, 0.15, 0.06, *_D65)
_ADOBE_GAMMA = 563 / 256
# H.273, table 3. All others, BT.709's and HLG among them, are shown with the curve of sRGB, as browsers do.
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}
_PQ = 16
_PQ_SAMPLES = 4096
_PQ_PEAK, _PQ_WHITE = 10_000.0, 203.0  # cd/m2; white of BT.2408: what is brighter becomes white


@lru_cache(maxsize=16)
def from_code_points(primaries: int, transfer: int) -> bytes | None:
    """Return the profile of two code points of H.273; None for sRGB and for unknown ones."""
    if primaries not in _PRIMARIES and transfer not in (*_GAMMAS, _PQ):
        return None
    curve = _pq() if transfer == _PQ else _gamma(_GAMMAS[transfer]) if transfer in _GAMMAS else _srgb()
    return profile(_PRIMARIES.get(primaries, _SRGB), curve)


@lru_cache(maxsize=1)
def adobe_rgb() -> bytes:
    """Return the profile of Adobe RGB (1998)."""
    return profile(_ADOBE_RGB, _gamma(_ADOBE_GAMMA))


@lru_cache(maxsize=4)
def from_png(gamma: float, chromaticities: Chromaticities) -> bytes | None:
    """Return the profile of a PNG's gAMA and cHRM (red, green, blue, white); None where they are sRGB's or senseless.

    A gamma of 1/2.2 with the primaries of sRGB is how programs write sRGB.
    """
    if not 0.1 <= gamma <= 10 or len(chromaticities) != len(_SRGB) or min(chromaticities[1::2]) < 0.01:
        return None
    if abs(gamma - 1 / 2.2) < 0.01 and np.allclose(chromaticities, _SRGB, atol=0.005):
        return None
    try:
        return profile(chromaticities, _gamma(1 / gamma))
    except (
        np.linalg.LinAlgError,
        struct.error,
        ValueError,
        OverflowError,
    ):  # primaries on one line, or so far apart that no profile holds them
        return None


def profile(chromaticities: Chromaticities, curve: bytes) -> bytes:
    """Return an ICC profile, version 4.3, of three primaries, a white and one curve for all three.

    Args:
        curve: An element of type curv or para, from stored value to light, both 0-1.
    """
    elements = {b"wtpt": _xyz(_D50_XYZ)}
    for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), _to_d50(chromaticities).T, strict=True):
        elements[name] = _xyz(column)
    elements |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    return _assemble(b"RGB ", elements)


def grey_profile(curve: bytes) -> bytes:
    """Return an ICC profile, version 4.3, of grey with that curve."""
    return _assemble(b"GRAY", {b"wtpt": _xyz(_D50_XYZ), b"kTRC": curve})


_DATE = struct.pack(">6H", 2026, 1, 1, 0, 0, 0)


def _assemble(space: bytes, elements: dict[bytes, bytes]) -> bytes:
    table, data = b"", b""
    start = 128 + 4 + 12 * len(elements)
    for name, element in elements.items():
        padded = element + bytes(-len(element) % 4)
        table += struct.pack(">4sII", name, start + len(data), len(element))
        data += padded
    body = struct.pack(">I", len(elements)) + table + data
    header = struct.pack(">I4xI4s4s4s12s4s28x", 128 + len(body), 0x04300000, b"mntr", space, b"XYZ ", _DATE, b"acsp")
    return header + struct.pack(">3i", *map(_fixed, _D50_XYZ)) + bytes(48) + body


def _to_d50(chromaticities: Chromaticities) -> np.ndarray:
    """Return (3, 3): linear RGB -> XYZ under D50, adapted after Bradford."""
    x, y = np.array(chromaticities, np.float64).reshape(4, 2).T
    points = np.stack([x / y, np.ones(4), (1 - x - y) / y])  # XYZ of red, green, blue, white in columns
    primaries, white = points[:, :3], points[:, 3]
    to_xyz = primaries * np.linalg.solve(primaries, white)
    scale = (_BRADFORD @ _D50_XYZ) / (_BRADFORD @ white)
    adapted: np.ndarray = np.linalg.solve(_BRADFORD, scale[:, None] * _BRADFORD) @ to_xyz
    return adapted


def _fixed(value: float) -> int:
    return round(value * 65536)


def _xyz(values: "tuple[float, ...] | np.ndarray") -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(_fixed(float(value)) for value in values))


def _gamma(gamma: float) -> bytes:
    return b"para" + bytes(4) + struct.pack(">HHi", 0, 0, _fixed(gamma))


def _srgb() -> bytes:
    parameters = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    return b"para" + bytes(4) + struct.pack(">HH5i", 3, 0, *map(_fixed, parameters))


def _sampled(light: Callable[[np.ndarray], np.ndarray], samples: int) -> bytes:
    values = np.rint(np.clip(light(np.linspace(0, 1, samples)), 0, 1) * 65535).astype(int).tolist()
    return b"curv" + bytes(4) + struct.pack(f">I{samples}H", samples, *values)


def _pq() -> bytes:
    """Return the curve of SMPTE ST 2084, where 1 is the white of BT.2408."""

    def light(signal: np.ndarray) -> np.ndarray:
        power = signal ** (32 / 2523)
        brightness: np.ndarray = np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)
        return brightness ** (16384 / 2610) * (_PQ_PEAK / _PQ_WHITE)

    return _sampled(light, _PQ_SAMPLES)
