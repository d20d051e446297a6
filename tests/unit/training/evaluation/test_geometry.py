"""A place of the network's input is the place of the file that it shows, whatever happened on the way."""

import io

import numpy as np
import pytest
from PIL import Image

from training.evaluation.geometry import look
from visionserve.transforms import Preprocessing


@pytest.mark.parametrize("turn", range(1, 9), ids=lambda turn: f"orientation {turn}")
@pytest.mark.parametrize(
    ("width", "height", "blob"),
    [(150, 100, (70, 35)), (100, 151, (62, 90)), (1003, 701, (520, 250))],
    ids=["wide", "high", "reduced decode"],
)
def test_a_bright_blob_is_found_where_it_was_drawn(turn: int, width: int, height: int, blob: tuple[int, int]) -> None:
    preprocessing = Preprocessing(48, 0.9)
    side = 0.05 * min(width, height)
    image, view = look(drawn(width, height, blob, side, turn), preprocessing)
    seen = centroid(image[:, :, 0])
    pixel = 0.9 * min(width, height) / 48
    assert view.to_file(seen) == pytest.approx(blob, abs=0.3 * pixel)
    assert view.to_input(blob) == pytest.approx(seen, abs=0.3)
    assert view.to_input(view.to_file((3.0, 40.0))) == pytest.approx((3.0, 40.0))


def test_the_corners_of_the_input_are_those_of_the_central_square() -> None:
    _, view = look(drawn(200, 100, (100, 50), 5, 1), Preprocessing(32, 0.5))
    assert view.to_file((0, 0)) == pytest.approx((75, 25))
    assert view.to_file((32, 32)) == pytest.approx((125, 75))


def drawn(width: int, height: int, blob: tuple[int, int], side: float, turn: int) -> bytes:
    """Return a black JPEG with a white square in pixels of the file as stored, and an EXIF orientation."""
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    white = (np.abs(rows - blob[1]) <= side) & (np.abs(columns - blob[0]) <= side)
    exif = Image.Exif()
    exif[274] = turn
    file = io.BytesIO()
    Image.fromarray(np.where(white[:, :, None], np.uint8(255), np.uint8(0)).repeat(3, axis=2)).save(
        file, "JPEG", quality=95, exif=exif
    )
    return file.getvalue()


def centroid(plane: np.ndarray) -> tuple[float, float]:
    weight = np.where(plane > 60, plane, 0).astype(float)
    rows, columns = np.mgrid[0 : plane.shape[0], 0 : plane.shape[1]] + 0.5
    return float((columns * weight).sum() / weight.sum()), float((rows * weight).sum() / weight.sum())
