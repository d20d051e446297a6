"""HEIC and AVIF of 8, 10 and 12 bits, all subsamplings, ranges, turns and kinds of transparency: the right pixels."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.unit.visionserve.formats import deep_images
from ui import overlay
from visionserve.errors import UnsupportedImage
from visionserve.images import decode, read_header

# Of 255, on average: what the encoders lose. With halved colours the edges of the squares bleed.
_LOST = {"420": 5.0, "422": 3.0}
each = pytest.mark.parametrize("name", deep_images.NAMES)


def lost(name: str) -> float:
    return next((loss for subsampling, loss in _LOST.items() if subsampling in name), 1.5)


@each
def test_its_pixels_are_those_that_were_drawn(name: str) -> None:
    expected, pixels = deep_images.shown(name), decode(deep_images.read(name))
    assert pixels.shape == expected.shape
    assert np.abs(pixels - expected).mean() < lost(name)


@each
def test_the_page_shows_the_same(name: str) -> None:
    file = deep_images.read(name)
    assert np.abs(overlay.decode(file).astype(int) - decode(file)).mean() < 1


@each
def test_a_report_about_data_reads_its_header(name: str) -> None:
    header = read_header(deep_images.read(name))
    upright = header.size[::-1] if header.turn >= 5 else header.size
    assert upright == deep_images.shown(name).shape[1::-1]


def test_a_premultiplied_heic_is_no_darker_than_a_plain_one() -> None:
    """Its colours are multiplied by alpha already: once more, they would be too dark."""
    plain, premultiplied = (decode(deep_images.read(f"10-{kind}.heic")) for kind in ("alpha", "premultiplied"))
    assert np.abs(plain.astype(int) - premultiplied).mean() < 1


def test_an_avif_with_a_crop_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedImage, match="states a crop"):
        decode((deep_images.FOLDER / deep_images.CROPPED).read_bytes())


def test_pictures_with_a_gain_map_are_the_ones_for_ordinary_screens() -> None:
    for kind in ("avif", "heic"):
        file, plain = (deep_images.read(f"10-{content}.{kind}") for content in ("gain-map", "444-full"))
        assert b"tmap" in file
        assert np.abs(decode(file).astype(int) - decode(plain)).max() <= 2


def test_the_kinds_are_different_files_of_what_they_say() -> None:
    for name in deep_images.NAMES:
        file = deep_images.read(name)
        assert (b"av1C" in file) == name.endswith("avif") and (b"hvcC" in file) == name.endswith("heic")
    assert len({deep_images.read(name) for name in deep_images.NAMES}) == len(deep_images.NAMES)
    with Image.open(io.BytesIO(deep_images.read("10-sequence.avif"))) as sequence:
        assert getattr(sequence, "n_frames", 1) == 2
