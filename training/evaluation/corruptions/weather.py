"""Snow, frost, fog and exposure. All take (H, W, 3) float32 0-1."""

import math
from functools import lru_cache

import numpy as np

from training.evaluation.corruptions.blur import trail
from training.evaluation.corruptions.pixels import convolve, enlarge, scale

_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # luminance of R, G, B
_ICE = np.array([0.86, 0.94, 1.0], np.float32)
_PANES = 5  # as many as the original has images of frost


def snow(
    pixels: np.ndarray,
    rng: np.random.Generator,
    mean: float,
    spread: float,
    size: float,
    least: float,
    half: float,
    fading: float,
    kept: float,
) -> np.ndarray:
    """Add falling flakes and whiten the image behind them."""
    height, width = pixels.shape[:2]
    factor, degrees = scale(pixels), rng.uniform(-135, -45)
    cells = (math.ceil(height / (size * factor)), math.ceil(width / (size * factor)))
    layer = enlarge(rng.normal(mean, spread, cells).astype(np.float32), height, width)
    flakes = np.clip(np.where(layer < least, 0, layer), 0, 1)
    falling = convolve(flakes, trail(half * factor, fading * factor, degrees))[..., None]
    pale = np.maximum(pixels, (pixels @ _GREY)[..., None] * 1.5 + 0.5)
    snowed: np.ndarray = kept * pixels + (1 - kept) * pale + falling + falling[::-1, ::-1]
    return snowed


def frost(pixels: np.ndarray, rng: np.random.Generator, kept: float, added: float) -> np.ndarray:
    """Add frost: a piece, perhaps mirrored, of one of five drawn panes."""
    height, width = pixels.shape[:2]
    pane = _pane(int(rng.integers(_PANES)), 2 * _power_of_two(max(height, width)))
    top, left = rng.integers(len(pane) - height), rng.integers(len(pane) - width)
    piece = pane[top : top + height, left : left + width]
    frozen: np.ndarray = kept * pixels + added * (piece[:, ::-1] if rng.random() < 0.5 else piece)
    return frozen


def fog(pixels: np.ndarray, rng: np.random.Generator, thickness: float, evenness: float) -> np.ndarray:
    """Add clouds; the higher ``evenness``, the larger they are."""
    height, width = pixels.shape[:2]
    clouds = plasma(rng, _power_of_two(max(height, width)), evenness)[:height, :width, None]
    brightest = float(pixels.max())
    hidden: np.ndarray = (pixels + thickness * clouds) * brightest / (brightest + thickness)
    return hidden


def brightness(pixels: np.ndarray, _: np.random.Generator, light: float) -> np.ndarray:
    """Overexpose: raise the value of hue, saturation and value; the other two stay."""
    value = pixels.max(-1, keepdims=True)
    raised = np.minimum(value + light, 1)
    lit: np.ndarray = np.where(value > 0, pixels * raised / np.maximum(value, 1e-6), raised)
    return lit


def exposure(pixels: np.ndarray, _: np.random.Generator, factor: float) -> np.ndarray:
    """Multiply the light by a factor: below 1 underexposed."""
    return pixels * np.float32(factor)


def plasma(rng: np.random.Generator, side: int, evenness: float) -> np.ndarray:
    """Return clouds (side, side) float32 0-1 that fit together at opposite borders; ``side`` is a power of two.

    The diamond-square algorithm (Fournier, Fussell & Carpenter 1982). Each halving of the step divides the roughness
    by the square of ``evenness``.
    """
    field, step, roughness = np.zeros((side, side), np.float32), side, 1.0

    def rough(sums: np.ndarray) -> np.ndarray:
        return sums / 4 + roughness * rng.uniform(-1, 1, sums.shape)

    while step >= 2:
        half = step // 2
        corners = field[::step, ::step]
        beside = corners + np.roll(corners, -1, 0)
        centres = rough(beside + np.roll(beside, -1, 1))
        field[half::step, half::step] = centres
        field[::step, half::step] = rough(centres + np.roll(centres, 1, 0) + corners + np.roll(corners, -1, 1))
        field[half::step, ::step] = rough(centres + np.roll(centres, 1, 1) + corners + np.roll(corners, -1, 0))
        step, roughness = half, roughness / evenness**2
    clouds: np.ndarray = (field - field.min()) / max(float(np.ptp(field)), 1e-6)
    return clouds


@lru_cache(maxsize=2 * _PANES)
def _pane(number: int, side: int) -> np.ndarray:
    """Draw one pane of frost, (side, side, 3) float32 0-1: a film, veins of ice and needles in a few directions."""
    rng = np.random.default_rng([number, side])
    film = plasma(rng, side, 1.7)
    veins = (1 - np.abs(2 * plasma(rng, side, 1.35) - 1)) ** 6
    needles = np.zeros((side, side), np.float32)
    for degrees in rng.uniform(-180, 180, 7):
        seeds = (rng.random((side, side)) < 0.004) * rng.random((side, side))
        needles += convolve(seeds.astype(np.float32), trail(side / 18, side / 20, degrees))
    needles = np.clip(needles / np.quantile(needles, 0.995), 0, 1) * (0.3 + 0.7 * film)
    ice = np.clip(0.35 * film + 0.55 * veins + 0.8 * needles, 0, 1)[..., None]
    white: np.ndarray = ice * (_ICE + (1 - _ICE) * ice)  # thin ice is blue, thick ice white
    return white


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()
