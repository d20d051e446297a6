import io

import numpy as np
import pytest
from PIL import Image

from visionserve import heatmap

# One strong place, at row 1 and column 5 of 7 x 7; one that speaks against the label.
CLASS_MAP = np.zeros((7, 7), dtype=np.float32)
CLASS_MAP[1, 5] = 8.0
CLASS_MAP[5, 1] = -8.0


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_the_strongest_place_of_the_map_is_the_brightest_of_the_picture() -> None:
    grey = pixels(heatmap.grey_png(CLASS_MAP, 70))
    assert grey.shape == (70, 70)
    assert grey.dtype == np.uint8
    row, column = divmod(int(grey.argmax()), 70)
    assert (row // 10, column // 10) == (1, 5)


def test_places_that_speak_against_the_label_stay_dark() -> None:
    assert pixels(heatmap.grey_png(CLASS_MAP, 70))[50:60, 10:20].max() == 0


def test_the_overlay_leaves_the_image_alone_where_nothing_speaks_for_the_label() -> None:
    image = np.random.default_rng(0).integers(0, 256, (70, 70, 3), dtype=np.uint8)
    overlay = pixels(heatmap.overlay_png(image, CLASS_MAP))
    assert np.array_equal(overlay[40:], image[40:])
    assert not np.array_equal(overlay[10:20, 50:60], image[10:20, 50:60])


def test_a_map_without_any_evidence_is_black_rather_than_an_error() -> None:
    assert pixels(heatmap.grey_png(-np.ones((7, 7), dtype=np.float32), 14)).max() == 0


@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 5), (6, 2)])
def test_the_peak_is_in_the_strongest_place_of_the_class_map(row: int, column: int) -> None:
    class_map = np.full((7, 7), -1.0, np.float32)
    class_map[row, column] = 4
    x, y = heatmap.peak(class_map, 224)
    assert (y // 32, x // 32) == (row, column)
    assert heatmap.intensity(class_map, 224)[int(y), int(x)] == heatmap.intensity(class_map, 224).max()


def test_a_peak_between_two_places_is_found_there() -> None:
    class_map = np.zeros((7, 7), np.float32)
    class_map[3, 2:4] = 1
    assert heatmap.peak(class_map, 224) == pytest.approx((96, 112), abs=1)


def test_where_nothing_speaks_for_the_label_the_peak_is_what_speaks_least_against_it() -> None:
    class_map = np.full((7, 7), -5.0, np.float32)
    class_map[1, 4] = -2
    x, y = heatmap.peak(class_map, 224)
    assert (y // 32, x // 32) == (1, 4)
