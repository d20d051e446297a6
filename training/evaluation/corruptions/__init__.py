"""The fifteen corruptions of Hendrycks & Dietterich 2019 (arXiv 1903.12261), each in five severities.

Input and output of `corrupt` are (H, W, 3) uint8. `KINDS` has the published fifteen, for prepared images; `MILD` has
five that begin weaker, for images as they are sent (monitoring.drift measures which of them its check detects).

Own code after the published description; strengths are the published ones unless stated otherwise beside them. Lengths
are in pixels of an image whose shorter side has 224 and grow with the image. Three differences: frost is drawn, because
the original pastes photographs of frost; glass moves pixels at random rather than swapping them one after the other;
elastic begins with two gentler steps, because the original's first two reduce accuracy more than its third.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from training.evaluation.corruptions import blur, digital, weather
from training.evaluation.corruptions.pixels import from_unit, to_unit

SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Kind:
    """One kind of corruption.

    ``apply`` takes (H, W, 3) float32 0-1, a random generator and one of ``strengths``, and returns the same, perhaps
    beyond 0-1. ``strengths`` has the parameters of severity 1 to 5, and ``meaning`` says what they are.
    """

    group: str
    apply: Callable[..., np.ndarray]
    strengths: tuple[tuple[float, ...], ...]
    meaning: str


KINDS: Mapping[str, Kind] = {
    "gaussian noise": Kind(
        "noise", digital.gaussian, ((0.08,), (0.12,), (0.18,), (0.26,), (0.38,)), "standard deviation, of 1"
    ),
    "shot noise": Kind("noise", digital.shot, ((60,), (25,), (12,), (5,), (3,)), "photons that make white"),
    "impulse noise": Kind(
        "noise", digital.impulse, ((0.03,), (0.06,), (0.09,), (0.17,), (0.27,)), "share of values that become 0 or 1"
    ),
    "defocus blur": Kind(
        "blur", blur.defocus, ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)), "radius; softness of its edge"
    ),
    "glass blur": Kind(
        "blur",
        blur.glass,
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        "blur before and after; furthest move; number of moves",
    ),
    "motion blur": Kind("blur", blur.motion, ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)), "half length; fading"),
    "zoom blur": Kind(
        "blur",
        blur.zoom,
        ((1.10, 0.01), (1.15, 0.01), (1.20, 0.02), (1.24, 0.02), (1.30, 0.03)),
        "last enlargement; step",
    ),
    "snow": Kind(
        "weather",
        weather.snow,
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
        "mean and spread of the flakes; their size; least brightness; half length and fading of the fall; image kept",
    ),
    "frost": Kind(
        "weather",
        weather.frost,
        ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
        "image kept; frost added",
    ),
    "fog": Kind("weather", weather.fog, ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)), "thickness; evenness"),
    "brightness": Kind("weather", weather.brightness, ((0.1,), (0.2,), (0.3,), (0.4,), (0.5,)), "light added, of 1"),
    "contrast": Kind("digital", digital.contrast, ((0.4,), (0.3,), (0.2,), (0.1,), (0.05,)), "contrast kept"),
    "elastic": Kind(
        "digital",
        digital.elastic,
        # The last three are the published ones.
        ((0.025, 0.01, 0.01), (0.035, 0.01, 0.015), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)),
        "waves: strength and smoothness; jitter of three corners; all in shorter sides",
    ),
    "pixelate": Kind("digital", digital.pixelate, ((0.6,), (0.5,), (0.4,), (0.3,), (0.25,)), "pixels kept per side"),
    "jpeg": Kind("digital", digital.jpeg, ((25,), (18,), (15,), (10,), (7,)), "quality"),
}


MILD: Mapping[str, Kind] = {
    "noise": Kind(
        "noise", digital.gaussian, tuple((levels / 255,) for levels in (4, 8, 16, 28, 45)), "standard deviation, of 1"
    ),
    "blur": Kind("blur", blur.gaussian, ((0.5,), (1.0,), (1.7,), (2.6,), (4.0,)), "standard deviation"),
    "brightness": Kind("weather", weather.exposure, ((0.9,), (0.75,), (0.6,), (0.45,), (0.3,)), "factor of the light"),
    "contrast": Kind("digital", digital.contrast, ((0.9,), (0.75,), (0.6,), (0.4,), (0.25,)), "contrast kept"),
    "jpeg": Kind("digital", digital.jpeg, ((60,), (40,), (25,), (15,), (8,)), "quality"),
}


def corrupt(image: np.ndarray, kind: str, severity: int, seed: int, kinds: Mapping[str, Kind] = KINDS) -> np.ndarray:
    """Return a corrupted copy of an image, (H, W, 3) uint8.

    Randomness depends on ``kind`` and ``seed`` only: the severities of one image differ in strength alone.

    Args:
        image: (H, W, 3) uint8, RGB.
        kind: one of ``kinds``.
        severity: 1 to 5.
        seed: of this image.
        kinds: `KINDS` or `MILD`.
    """
    if kind not in kinds or severity not in SEVERITIES:
        raise ValueError(f"a corruption is one of {', '.join(kinds)} in severity 1 to 5, not {kind!r} in {severity}")
    corruption = kinds[kind]
    rng = np.random.default_rng([zlib.crc32(kind.encode()), seed])
    return from_unit(corruption.apply(to_unit(image), rng, *corruption.strengths[severity - 1]))
