"""The heatmap's colour scale: equal steps of strength look like equal steps of colour.

Violet through red to yellow in OKLCH (Ottosson 2020, https://bottosson.github.io/posts/oklab): lightness rises in a
straight line, so the scale also reads in grey and to colour-blind eyes.
"""

import numpy as np

_LIGHTNESS = (0.40, 0.92)
_CHROMA = (0.19, 0.17)
_HUE = (300.0, 460.0)  # degrees; 460 is yellow, reached through red
_STEPS = 256

# OKLab -> cone responses (cubed below) -> linear sRGB, both from the page named above.
_TO_CONES = np.array(
    [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ]
)
_TO_LINEAR = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def scale() -> np.ndarray:
    """Return the colours of strengths 0 to 255: (256, 3) uint8, sRGB."""
    place = np.linspace(0, 1, _STEPS)
    lightness, chroma, hue = (start + (end - start) * place for start, end in (_LIGHTNESS, _CHROMA, _HUE))
    turn = np.deg2rad(hue)
    lab = np.stack([lightness, chroma * np.cos(turn), chroma * np.sin(turn)], axis=-1)  # (256, 3)
    linear = np.clip((lab @ _TO_CONES.T) ** 3 @ _TO_LINEAR.T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    colours: np.ndarray = np.rint(encoded * 255).astype(np.uint8)
    return colours


def gradient(stops: int = 7) -> str:
    """Return the scale as a CSS gradient from left to right."""
    chosen = scale()[np.linspace(0, _STEPS - 1, stops).astype(int)].tolist()
    return f"linear-gradient(90deg, {', '.join(f'rgb({r} {g} {b})' for r, g, b in chosen)})"
