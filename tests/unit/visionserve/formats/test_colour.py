import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.unit.visionserve.formats.costly_images import png_chunk
from visionserve.formats import colour
from visionserve.images import decode

WIDTH, HEIGHT = 17, 11
ROWS, COLUMNS = np.mgrid[0:HEIGHT, 0:WIDTH]
RAMP = (15 * COLUMNS + ROWS).astype(np.uint8)  # (11, 17), dark left, bright right
PIXELS = np.stack([RAMP, 255 - RAMP, np.full_like(RAMP, 90)], axis=2)


def saved(image: Image.Image, image_format: str = "TIFF", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[:, :, None], 3, axis=2)


def on_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    opacity = alpha[:, :, None] / 255
    return np.asarray(pixels * opacity + 255 * (1 - opacity))


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_laid_on_white(image_format: str) -> None:
    alpha = (255 - RAMP).astype(np.uint8)
    image = Image.fromarray(np.dstack([PIXELS, alpha]), "RGBA")
    pixels = decode(saved(image, image_format, **({"lossless": True, "exact": True} if image_format == "WEBP" else {})))
    assert np.abs(pixels - on_white(PIXELS, alpha)).max() <= 1


def test_grey_with_alpha_is_laid_on_white() -> None:
    alpha = (255 - RAMP).astype(np.uint8)
    pixels = decode(saved(Image.fromarray(np.dstack([RAMP, alpha]), "LA"), "PNG"))
    assert np.abs(pixels - on_white(grey(RAMP), alpha)).max() <= 1


def palette_image() -> Image.Image:
    image = Image.fromarray((COLUMNS % 4).astype(np.uint8), "P")
    image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200, 9, 9, 9])
    return image


@pytest.mark.parametrize("image_format", ["PNG", "GIF"])
def test_the_transparent_entry_of_a_palette_becomes_white(image_format: str) -> None:
    pixels = decode(saved(palette_image(), image_format, transparency=1))
    assert pixels[:, :4].tolist() == HEIGHT * [[[200, 0, 0], [255, 255, 255], [0, 0, 200], [9, 9, 9]]]


def test_a_palette_with_an_alpha_of_its_own_for_each_entry_is_laid_on_white() -> None:
    pixels = decode(saved(palette_image(), "PNG", transparency=bytes([255, 0, 51, 255])))
    assert np.abs(pixels[0, :4].astype(int) - [[200, 0, 0], [255, 255, 255], [204, 204, 244], [9, 9, 9]]).max() <= 1


@pytest.mark.parametrize("image_format", ["PNG", "GIF", "BMP", "TIFF"])
def test_a_palette_without_transparency_keeps_its_colours(image_format: str) -> None:
    pixels = decode(saved(palette_image(), image_format))
    assert pixels[:, :4].tolist() == HEIGHT * [[[200, 0, 0], [0, 200, 0], [0, 0, 200], [9, 9, 9]]]


def test_the_transparent_colour_of_an_rgb_png_becomes_white() -> None:
    pixels = decode(saved(Image.fromarray(PIXELS), "PNG", transparency=tuple(PIXELS[2, 3].tolist())))
    expected = PIXELS.copy()
    expected[2, 3] = 255
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("mode", ["L", "I;16"])
def test_the_transparent_shade_of_a_grey_png_becomes_white(mode: str) -> None:
    values = RAMP if mode == "L" else RAMP.astype(np.uint16) * 257
    pixels = decode(saved(Image.fromarray(values), "PNG", transparency=int(values[2, 3])))
    expected = np.where(RAMP[2, 3] == RAMP, 255, RAMP)
    np.testing.assert_array_equal(pixels, grey(expected))


def png_row(bits: int, colour: int, transparent: bytes, row: bytes, width: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, 1, bits, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"tRNS", transparent), (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


@pytest.mark.parametrize("values", [(0x1234, 0x5678, 0x9ABC), (0x0012, 0x0034, 0x0056)], ids=["high", "below-256"])
def test_the_transparent_colour_of_a_16_bit_rgb_png_becomes_white(values: tuple[int, int, int]) -> None:
    key = struct.pack(">3H", *values)
    file = png_row(16, 2, key, key + struct.pack(">3H", 0x8000, 0x4000, 0x2000), 2)
    assert decode(file).tolist() == [[[255, 255, 255], [0x80, 0x40, 0x20]]]


def test_the_transparent_shade_of_a_grey_png_of_few_bits_becomes_white() -> None:
    assert decode(png_row(2, 0, b"\0\1", bytes([0b00011011]), 4))[0, :, 0].tolist() == [0, 255, 170, 255]
    assert decode(png_row(4, 0, b"\0\2", bytes([0x12, 0x3F]), 4))[0, :, 0].tolist() == [17, 255, 51, 255]


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(image_format: str) -> None:
    pixels = decode(saved(Image.fromarray(RAMP.astype(np.uint16) * 257), image_format))
    np.testing.assert_array_equal(pixels, grey(RAMP))


def test_a_16_bit_tiff_that_counts_from_white_is_turned_over() -> None:
    values = (255 - RAMP).astype(np.uint16) * 257
    pixels = decode(saved(Image.fromarray(values), tiffinfo={262: 0}))
    np.testing.assert_array_equal(pixels, grey(RAMP))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_values_without_a_nominal_white_span_from_the_darkest_to_the_brightest(dtype: type) -> None:
    values = RAMP.astype(np.float64)  # 0 to 250
    pixels = decode(saved(Image.fromarray((values * 1000 - 70_000).astype(dtype))))
    np.testing.assert_array_equal(pixels, grey(np.rint(values * 255 / 250)))


@pytest.mark.parametrize(("odd", "shade"), [(np.nan, 0), (np.inf, 255), (-np.inf, 0)])
@pytest.mark.parametrize("place", [(0, 0), (5, 5)], ids=["first", "middle"])
def test_a_float_image_is_scaled_by_its_finite_values(odd: float, shade: int, place: tuple[int, int]) -> None:
    values = RAMP.astype(np.float32)
    values[place] = odd
    pixels = decode(saved(Image.fromarray(values)))
    darkest = 1 if place == (0, 0) else 0
    expected = np.rint((RAMP - float(darkest)).clip(0) * 255 / (250 - darkest)).astype(np.uint8)
    expected[place] = shade
    np.testing.assert_array_equal(pixels, grey(expected))


def test_a_float_image_without_a_finite_value_is_no_error() -> None:
    assert not decode(saved(Image.fromarray(np.full((HEIGHT, WIDTH), np.nan, np.float32)))).any()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16", "I", "F"])
def test_a_reduced_image_is_near_the_mean_of_the_whole_one(mode: str) -> None:
    smooth = np.asarray(Image.fromarray(np.dstack([PIXELS, RAMP])).resize((160, 96)))
    image = (
        Image.fromarray(smooth[:, :, 0].astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]) * 257)
        if mode in ("I;16", "I", "F")
        else Image.fromarray(smooth).convert(mode)
    )
    whole = Image.fromarray(colour.rgb_on_white(image))
    for factor in (2, 4, 8):
        reduced = colour.rgb_on_white(image, factor)
        assert reduced.shape == (96 // factor, 160 // factor, 3)
        assert np.abs(reduced.astype(int) - np.asarray(whole.reduce(factor))).max() <= 2


def test_a_band_that_is_no_multiple_of_the_factor_is_reduced_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(colour, "_BAND", 4 * WIDTH)
    image = Image.fromarray(PIXELS)  # 17 x 11
    np.testing.assert_array_equal(colour.rgb_on_white(image, 2), np.asarray(image.reduce(2)))


def test_a_float_image_of_one_value_is_black() -> None:
    assert not decode(saved(Image.fromarray(np.full((HEIGHT, WIDTH), 7, np.float32)))).any()


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "TIFF", "GIF"])
def test_one_bit_images_become_black_and_white(image_format: str) -> None:
    pixels = decode(saved(Image.fromarray(RAMP > 100), image_format))
    np.testing.assert_array_equal(pixels, grey(np.where(RAMP > 100, 255, 0)))


@pytest.mark.parametrize("mode", ["LAB", "CMYK", "YCbCr"])
def test_other_colour_spaces_come_back_to_rgb(mode: str) -> None:
    pixels = decode(saved(Image.fromarray(PIXELS).convert(mode)))
    assert np.abs(pixels.astype(int) - PIXELS).mean() < 8


def test_bands_of_rows_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.fromarray(np.dstack([PIXELS, RAMP]), "RGBA")
    whole = colour.rgb_on_white(image)
    monkeypatch.setattr(colour, "_BAND", 4 * WIDTH)  # 11 rows: bands of 4, 4 and 3
    np.testing.assert_array_equal(colour.rgb_on_white(image), whole)
