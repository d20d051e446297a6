from pathlib import Path

import numpy as np
import pytest

from visionserve.errors import BundleError
from visionserve.novelty import Reference

RANDOM = np.random.default_rng(0)
MEANS = np.array([[5, 0, 0, 0], [0, 5, 0, 0]], dtype=np.float32)
LABELS = np.arange(400) % 2
SPREAD = np.array([1, 1, 1, 0.2])  # one direction in which the photographs hardly differ


def embeddings(count: int) -> np.ndarray:
    made: np.ndarray = (MEANS[np.arange(count) % 2] + RANDOM.normal(size=(count, 4)) * SPREAD).astype(np.float32)
    return made


REFERENCE = Reference.fit(embeddings(400), LABELS, embeddings(200))


def test_what_resembles_the_validation_photographs_spreads_evenly_over_0_to_1() -> None:
    values = [REFERENCE.novelty(embedding) for embedding in embeddings(400)]
    assert np.mean(values) == pytest.approx(0.5, abs=0.06)
    assert np.quantile(values, 0.9) == pytest.approx(0.9, abs=0.06)


def test_a_class_mean_is_the_most_ordinary_of_all() -> None:
    assert REFERENCE.novelty(MEANS[0]) < 0.05


def test_what_no_class_resembles_is_novel() -> None:
    assert REFERENCE.novelty(np.array([0, 0, 30, 0], dtype=np.float32)) == 1.0


def test_a_step_in_a_direction_without_spread_counts_more() -> None:
    along = REFERENCE.distance(MEANS[0] + np.array([0, 0, 1.5, 0], dtype=np.float32))
    across = REFERENCE.distance(MEANS[0] + np.array([0, 0, 0, 1.5], dtype=np.float32))
    assert across > 1.5 * along


def test_saved_statistics_load_as_they_were(tmp_path: Path) -> None:
    REFERENCE.save(tmp_path / "reference.safetensors")
    loaded = Reference.load(tmp_path / "reference.safetensors")
    assert all(np.array_equal(getattr(loaded, name), values) for name, values in vars(REFERENCE).items())


def test_missing_statistics_are_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"reference\.safetensors"):
        Reference.load(tmp_path / "reference.safetensors")
