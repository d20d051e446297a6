"""Noise of the sensor and of the line. All take (H, W, 3) float32 0-1."""

import numpy as np


def gaussian(pixels: np.ndarray, chance: np.random.Generator, deviation: float) -> np.ndarray:
    """Add the grain of a sensor in low light."""
    noisy: np.ndarray = pixels + np.float32(deviation) * chance.standard_normal(pixels.shape, np.float32)
    return noisy


def shot(pixels: np.ndarray, chance: np.random.Generator, photons: float) -> np.ndarray:
    """Count the light in photons, of which ``photons`` make white."""
    return chance.poisson(pixels * photons) / photons


def impulse(pixels: np.ndarray, chance: np.random.Generator, share: float) -> np.ndarray:
    """Set a share of all values to black or white, like a line that loses bits."""
    drawn = chance.random(pixels.shape, np.float32)
    return np.where(drawn < share / 2, 0, np.where(drawn > 1 - share / 2, 1, pixels))
