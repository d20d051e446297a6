import io

import numpy as np
import pillow_heif
import pytest
from PIL import ExifTags, Image

from tests.unit.visionserve.formats.profiles import DISPLAY_P3
from ui import overlay
from ui.overlay import View


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_an_image_is_shown_upright() -> None:
    image = Image.new("RGB", (17, 11), "black")
    image.putpixel((0, 0), (255, 255, 255))
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6  # the camera was turned to the left: the first pixel belongs top right
    shown = overlay.decode(encode(image, exif=turned))
    assert shown.shape == (17, 11, 3)
    assert shown[0, -1].min() == 255


@pytest.mark.parametrize("kind", ["HEIF", "AVIF", "WEBP", "TIFF"])
def test_an_image_of_any_container_is_shown_upright(kind: str) -> None:
    pillow_heif.register_heif_opener()
    image = Image.new("RGB", (64, 48), "black")
    image.paste("white", (0, 0, 32, 24))
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    shown = overlay.decode(encode(image, kind, exif=turned.tobytes()))
    assert shown.shape == (64, 48, 3)
    bright = np.argwhere(shown.min(axis=-1) > 200).mean(axis=0)
    assert bright == pytest.approx([15.5, 35.5], abs=2)  # top right


def test_transparency_is_shown_on_white() -> None:
    shown = overlay.decode(encode(Image.new("RGBA", (17, 11), (0, 0, 0, 0))))
    assert shown.min() == 255


def test_a_grey_image_of_sixteen_bits_keeps_its_greys() -> None:
    ramp = np.linspace(0, 0xFFFF, 256).astype(np.uint16)[None].repeat(4, 0)
    shown = overlay.decode(encode(Image.fromarray(ramp)))
    assert np.abs(shown[0, :, 0].astype(int) - np.arange(256)).max() <= 1


def test_a_large_image_becomes_small_in_its_proportions() -> None:
    shown = overlay.decode(encode(Image.new("RGB", (4000, 2000), "green"), "JPEG"))
    assert shown.shape == (450, 900, 3)


def test_what_is_no_image_is_an_os_error() -> None:
    with pytest.raises(OSError, match="cannot identify"):
        overlay.decode(b"hello")


def test_the_models_view_is_the_middle_square() -> None:
    assert overlay.view(np.zeros((100, 300, 3), np.uint8), 0.5) == View(left=125, top=25, side=50)
    assert overlay.view(np.zeros((1, 1, 3), np.uint8), 0.5).side == 1


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def test_without_opacity_the_image_is_as_it_was(image: np.ndarray) -> None:
    heat = np.full((8, 8), 255, np.uint8)
    assert (overlay.blend(image, heat, View(10, 0, 40), 0) == image).all()


def test_more_opacity_changes_more_of_the_seen_square(image: np.ndarray) -> None:
    heat = np.full((8, 8), 255, np.uint8)
    seen = View(10, 0, 40)
    steps = [overlay.blend(image, heat, seen, opacity).astype(int) for opacity in (0.0, 0.3, 0.6, 1.0)]
    distances = [np.abs(step - steps[0])[:, 10:50].mean() for step in steps]
    assert distances == sorted(distances)
    assert len(set(distances)) == 4


def test_the_strongest_place_is_where_the_heatmap_is_brightest() -> None:
    grey = np.full((64, 64, 3), 90, np.uint8)
    heat = np.zeros((8, 8), np.uint8)
    heat[6, 1] = 255  # below, to the left
    blended = overlay.blend(grey, heat, View(0, 0, 64), 1).astype(int)
    distance = np.abs(blended - overlay.scale()[255].astype(int)).sum(-1)
    row, column = np.unravel_index(distance.argmin(), distance.shape)
    assert 44 <= row <= 60
    assert 4 <= column <= 20


def test_the_scale_grows_lighter_in_equal_steps() -> None:
    linear = (overlay.scale() / 255.0) ** 2.2
    lightness = np.cbrt(linear @ [0.2126, 0.7152, 0.0722])  # as CIE L*, up to a constant
    steps = np.diff(lightness[::16])
    assert (steps > 0).all()
    assert steps.max() / steps.min() < 2.5


def test_a_css_gradient_has_as_many_stops_as_asked() -> None:
    assert overlay.gradient(3).count("rgb(") == 3


def test_colours_are_shown_in_srgb_and_a_broken_profile_is_ignored() -> None:
    green = Image.new("RGB", (17, 11), (60, 180, 60))
    assert overlay.decode(encode(green, icc_profile=DISPLAY_P3))[0, 0] == pytest.approx([0, 183, 30], abs=2)
    assert tuple(overlay.decode(encode(green, icc_profile=DISPLAY_P3[:200]))[0, 0]) == (60, 180, 60)
