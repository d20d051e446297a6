"""Image and heatmap -> the image that is shown.

The service has accepted a file before anything here decodes it, so its limits hold. The heatmap covers the square in
the middle of the image that the model saw; the rest is dimmed.

The heatmap's colours: equal steps of strength look like equal steps of colour. Violet through red to yellow in OKLCH
(Ottosson 2020, https://bottosson.github.io/posts/oklab): lightness rises in a straight line, so the scale also reads in
grey and to colour-blind eyes.
"""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms, ImageOps

Pixels = np.ndarray  # (H, W, 3) uint8, RGB

_SIDE = 900  # pixels of the longer side: sharp on a phone's screen, small on its way there
_GREYED = 0.75  # share of the image's colour removed below a full heatmap, so that the scale's colours read
_OUTSIDE = 0.45  # how far the surroundings of the model's view are darkened below a full heatmap
_COVER = 0.9  # opacity of a strong spot of a full heatmap
_STRONG = 0.5  # strength from which on a spot is covered that much; weaker ones let the image through
_FRAME = 0.4  # how white the line around the model's view is
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
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


@dataclass(frozen=True)
class View:
    """The square of an image that the model saw, in pixels."""

    left: int
    top: int
    side: int


def decode(data: bytes) -> Pixels:
    """Decode a file, upright, on white, at most 900 pixels long.

    Raises:
        OSError, ValueError: the service can decode it, but this page cannot.
    """
    with _open(data) as encoded:
        encoded.draft("RGB", (_SIDE * 2, _SIDE * 2))  # a large JPEG is decoded at a fraction of its size
        profile = encoded.info.get("icc_profile")
        image = ImageOps.exif_transpose(_eight_bit(encoded))
        image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    image = _as_srgb(image, profile)
    page = Image.new("RGBA", image.size, "white")
    page.alpha_composite(image.convert("RGBA"))
    return np.asarray(page.convert("RGB"))


def _as_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert an image to sRGB that has an ICC profile; one that does not fit is ignored, as in the service."""
    if not profile or image.mode not in ("RGB", "RGBA", "L", "CMYK"):
        return image
    target = "RGBA" if image.mode == "RGBA" else "RGB"
    try:
        converted = ImageCms.profileToProfile(
            image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), outputMode=target
        )
    except (OSError, ValueError, ImageCms.PyCMSError):
        return image
    return converted or image


def _open(data: bytes) -> Image.Image:
    if data[4:8] == b"ftyp":
        # HEIC needs this library; AVIF, of the same container, is one of Pillow's own formats.
        import pillow_heif

        pillow_heif.register_heif_opener()
    return Image.open(io.BytesIO(data))


def view(image: Pixels, crop: float) -> View:
    """Return the model's square of an image: centred, ``crop`` of the shorter side."""
    height, width = image.shape[:2]
    side = max(1, round(min(height, width) * crop))
    return View((width - side) // 2, (height - side) // 2, side)


def strength(heatmap: bytes) -> np.ndarray:
    """Decode the service's heatmap, a grey PNG, to (S, S) uint8."""
    with Image.open(io.BytesIO(heatmap)) as encoded:
        return np.asarray(encoded.convert("L"))


def blend(image: Pixels, heat: np.ndarray, square: View, opacity: float) -> np.ndarray:
    """Lay a heatmap (S, S) uint8 over the model's square of an image (H, W, 3) uint8.

    Args:
        opacity: 0 shows the image alone, 1 a heatmap that covers its strongest spot.
    """
    if opacity <= 0:
        return image
    size = (square.side, square.side)
    levels = np.asarray(Image.fromarray(heat).resize(size, Image.Resampling.BICUBIC))  # (side, side)
    below = image.astype(np.float32)
    grey = (below @ _LUMA)[:, :, None]  # (H, W, 1)
    below += (grey - below) * (_GREYED * opacity)
    result = below * (1 - _OUTSIDE * opacity)
    inside = np.s_[square.top : square.top + square.side, square.left : square.left + square.side]
    cover = np.minimum(levels.astype(np.float32) / (255 * _STRONG), 1)[:, :, None] * (
        _COVER * opacity
    )  # (side, side, 1)
    result[inside] = below[inside] * (1 - cover) + scale()[levels] * cover
    _frame(result[inside], _FRAME * opacity)
    blended: Pixels = np.rint(np.clip(result, 0, 255)).astype(np.uint8)
    return blended


def scale() -> np.ndarray:
    """Return the colours of strengths 0 to 255: (256, 3) uint8, sRGB."""
    fraction = np.linspace(0, 1, _STEPS)
    lightness, chroma, hue = (start + (end - start) * fraction for start, end in (_LIGHTNESS, _CHROMA, _HUE))
    turn = np.deg2rad(hue)
    lab = np.stack([lightness, chroma * np.cos(turn), chroma * np.sin(turn)], axis=-1)  # (256, 3)
    linear = np.clip((lab @ _TO_CONES.T) ** 3 @ _TO_LINEAR.T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    colours: np.ndarray = np.rint(encoded * 255).astype(np.uint8)
    return colours


def gradient(stops: int = 7) -> str:
    """Return the scale as a CSS gradient from left to right."""
    stop_colours = scale()[np.linspace(0, _STEPS - 1, stops).astype(int)].tolist()
    return f"linear-gradient(90deg, {', '.join(f'rgb({r} {g} {b})' for r, g, b in stop_colours)})"


def _frame(square: np.ndarray, whiteness: float) -> None:
    """Draw a line along the inside of a square (side, side, 3), in place."""
    for edge in (square[0], square[-1], square[1:-1, 0], square[1:-1, -1]):
        edge += (255 - edge) * whiteness


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey and floats, which Pillow would clip, to eight bits."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    white = 0xFFFF if image.mode.startswith("I;16") else values.max() or 1
    return Image.fromarray(np.clip(values * (255 / white), 0, 255).astype(np.uint8))
