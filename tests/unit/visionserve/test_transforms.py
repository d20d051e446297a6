import io

import numpy as np
import pytest
from PIL import Image

from visionserve.errors import ImageTooLarge
from visionserve.images import Limits, decode
from visionserve.transforms import Preprocessing, load

ROWS, COLUMNS = np.mgrid[0:11, 0:17]
PIXELS = np.stack([15 * COLUMNS, 25 * ROWS, np.full((11, 17), 60)], axis=2).astype(np.uint8)  # (11, 17, 3)


def jpeg(width: int, height: int) -> bytes:
    """Draw something like a photo: soft shapes, edges and grain."""
    rng = np.random.default_rng(7)
    small = rng.integers(0, 256, (height // 100 + 2, width // 100 + 2, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(small).resize((width, height))).astype(np.int16)
    image[height // 3 : height // 2, width // 3 : width // 2] //= 3  # an edge that stays an edge
    image += rng.integers(-12, 13, (height, width, 1), dtype=np.int16)
    file = io.BytesIO()
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def test_the_central_square_is_taken_from_a_wide_image() -> None:
    square = Preprocessing(size=11, crop=1.0)(PIXELS)
    np.testing.assert_array_equal(square, PIXELS[:, 3:14])


def test_the_central_square_is_taken_from_a_tall_image() -> None:
    tall = np.ascontiguousarray(PIXELS.swapaxes(0, 1))
    np.testing.assert_array_equal(Preprocessing(size=11, crop=1.0)(tall), tall[3:14])


def test_the_square_has_crop_times_the_shorter_side() -> None:
    np.testing.assert_array_equal(Preprocessing(size=6, crop=0.5)(PIXELS), PIXELS[2:8, 5:11])  # round(5.5) is 6


@pytest.mark.parametrize("shape", [(300, 500), (500, 300), (231, 230), (1000, 257)])
def test_the_resize_is_bilinear_with_antialiasing_as_pillow_does_it(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    side = round(0.875 * min(shape))
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    square = Image.fromarray(image[top : top + side, left : left + side])
    expected = np.asarray(square.resize((224, 224), Image.Resampling.BILINEAR))
    assert np.abs(Preprocessing()(image).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 3), (17, 11)])
def test_tiny_images_are_enlarged(shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), (10, 20, 30), np.uint8)
    pixels = Preprocessing(size=32)(image)
    assert pixels.shape == (32, 32, 3)
    assert (pixels == (10, 20, 30)).all()


def test_the_result_is_contiguous_writable_and_shares_nothing_with_the_image() -> None:
    image = PIXELS.copy()
    for size in (11, 7, 32):
        pixels = Preprocessing(size=size, crop=1.0)(image)
        assert pixels.dtype == np.uint8
        assert pixels.flags.c_contiguous
        assert pixels.flags.writeable
        pixels[:] = 0
    np.testing.assert_array_equal(image, PIXELS)


def test_read_only_and_strided_images_are_taken() -> None:
    read_only = PIXELS.copy()
    read_only.flags.writeable = False
    expected = Preprocessing(size=5)(PIXELS)
    np.testing.assert_array_equal(Preprocessing(size=5)(read_only), expected)
    np.testing.assert_array_equal(Preprocessing(size=5)(np.repeat(PIXELS, 2, axis=1)[:, ::2]), expected)
    mirrored = Preprocessing(size=11, crop=1.0)(PIXELS[::-1])
    np.testing.assert_array_equal(mirrored, PIXELS[::-1, 3:14])


@pytest.mark.parametrize(("size", "crop"), [(0, 0.875), (-1, 0.875), (224, 0.0), (224, 1.1), (224, -0.5)])
def test_sizes_and_crops_that_make_no_sense_are_refused(size: int, crop: float) -> None:
    with pytest.raises(ValueError, match="size must be positive"):
        Preprocessing(size, crop)


@pytest.mark.parametrize("crop", [0.875, 1.0, 0.5])
def test_a_reduced_decode_never_leaves_fewer_pixels_than_the_square_needs(crop: float) -> None:
    preprocessing = Preprocessing(size=40, crop=crop)
    for shorter in range(preprocessing.min_side, preprocessing.min_side + 9):
        assert round(crop * shorter) >= preprocessing.size


@pytest.mark.parametrize(("width", "height"), [(4000, 3000), (2250, 3000)])
def test_a_large_jpeg_gives_nearly_the_pixels_of_a_full_decode(width: int, height: int) -> None:
    file, preprocessing = jpeg(width, height), Preprocessing()
    assert min(decode(file, min_side=preprocessing.min_side).shape[:2]) < min(width, height)
    difference = np.abs(load(file, preprocessing).astype(int) - preprocessing(decode(file)))
    assert difference.mean() < 3


def test_an_ordinary_jpeg_gives_exactly_the_pixels_of_a_full_decode() -> None:
    file, preprocessing = jpeg(500, 333), Preprocessing()
    np.testing.assert_array_equal(load(file, preprocessing), preprocessing(decode(file)))


def test_load_holds_the_limits() -> None:
    with pytest.raises(ImageTooLarge):
        load(jpeg(100, 100), Preprocessing(), Limits(max_pixels=9999))


def test_load_gives_the_same_pixels_every_time() -> None:
    file, preprocessing = jpeg(700, 1100), Preprocessing()
    np.testing.assert_array_equal(load(file, preprocessing), load(bytearray(file), preprocessing))
