"""Corruptions of a photograph in five severities: what a changed camera, a dirty lens or a saving proxy does to it.

The kinds are among those of Hendrycks and Dietterich 2019 (arXiv 1903.12261); the strengths are our own, chosen so that
the first can hardly be seen and the last leaves nobody in doubt. All take and return (H, W, 3) uint8.

`training.evaluation.corruptions` has all fifteen kinds at the published strengths, for images as the network sees them;
these begin weaker and are applied to the image as it is sent. Only the JPEG is the same code, two lines of it.
"""

import io
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageFilter

SEVERITIES = (1, 2, 3, 4, 5)
_NOISE = (4, 8, 16, 28, 45)  # standard deviation, in levels of 255
_BLUR = (0.5, 1.0, 1.7, 2.6, 4.0)  # radius, in 224ths of the shorter side
_BRIGHTNESS = (0.9, 0.75, 0.6, 0.45, 0.3)  # factor
_CONTRAST = (0.9, 0.75, 0.6, 0.4, 0.25)  # factor about the mean
_QUALITY = (60, 40, 25, 15, 8)  # of a JPEG


def noise(image: np.ndarray, severity: int, seed: int) -> np.ndarray:
    """Add the grain of a dark sensor."""
    grain = np.random.default_rng(seed).normal(0, _NOISE[severity - 1], image.shape)
    return _levels(image + grain)


def blur(image: np.ndarray, severity: int, seed: int) -> np.ndarray:  # noqa: ARG001 - all share one signature
    """Put the lens out of focus."""
    radius = _BLUR[severity - 1] * min(image.shape[:2]) / 224
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


def brightness(image: np.ndarray, severity: int, seed: int) -> np.ndarray:  # noqa: ARG001
    """Underexpose."""
    return _levels(image * _BRIGHTNESS[severity - 1])


def contrast(image: np.ndarray, severity: int, seed: int) -> np.ndarray:  # noqa: ARG001
    """Fog the lens."""
    mean = image.mean()
    return _levels(mean + (image - mean) * _CONTRAST[severity - 1])


def jpeg(image: np.ndarray, severity: int, seed: int) -> np.ndarray:  # noqa: ARG001
    """Save again with fewer bytes."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=_QUALITY[severity - 1])
    return np.asarray(Image.open(stream))


CORRUPTIONS: Mapping[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
    "noise": noise,
    "blur": blur,
    "brightness": brightness,
    "contrast": contrast,
    "jpeg": jpeg,
}


def _levels(values: np.ndarray) -> np.ndarray:
    rounded: np.ndarray = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return rounded
