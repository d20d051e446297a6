from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from visionserve.errors import BundleError
from visionserve.novelty import DIMENSIONS, Reference

RANDOM = np.random.default_rng(0)
MEANS = np.array([[5, 0, 0, 0], [0, 5, 0, 0]], dtype=np.float32)
LABELS = np.arange(400) % 2
SPREAD = np.array([1, 1, 1, 0.2])  # one direction in which the images hardly differ
SURE = np.array([8, 0], dtype=np.float32)


def embeddings(count: int) -> np.ndarray:
    made: np.ndarray = (MEANS[np.arange(count) % 2] + RANDOM.normal(size=(count, 4)) * SPREAD).astype(np.float32)
    return made


def logits(count: int) -> np.ndarray:
    made: np.ndarray = RANDOM.normal([6, 0], 0.5, size=(count, 2)).astype(np.float32)
    return made


REFERENCE = Reference.fit(embeddings(400), LABELS, embeddings(200), logits(200))


def test_what_resembles_the_validation_photographs_spreads_evenly_over_0_to_1() -> None:
    values = [REFERENCE.novelty(*image) for image in zip(embeddings(400), logits(400), strict=True)]
    assert np.mean(values) == pytest.approx(0.5, abs=0.06)
    assert np.quantile(values, 0.9) == pytest.approx(0.9, abs=0.06)


def test_a_class_mean_that_speaks_for_its_label_is_the_most_ordinary_of_all() -> None:
    assert REFERENCE.novelty(MEANS[0], SURE) < 0.05


def test_what_no_class_resembles_is_novel() -> None:
    assert REFERENCE.novelty(np.array([0, 0, 30, 0], dtype=np.float32), SURE) == 1.0


def test_what_speaks_for_no_label_is_novel_wherever_it_lies() -> None:
    assert REFERENCE.novelty(MEANS[0], np.zeros(2, np.float32)) == 1.0


def test_logits_count_twice_as_much_as_the_distance_among_validation_photographs() -> None:
    spread = np.std([REFERENCE.distance(embedding) for embedding in embeddings(2000)])
    certainty = np.std(REFERENCE.logit_weight[0] * logits(2000).max(1))
    assert certainty == pytest.approx(2 * spread, rel=0.15)


def test_logits_that_never_differ_say_nothing() -> None:
    reference = Reference.fit(embeddings(400), LABELS, embeddings(200), np.ones((200, 2), np.float32))
    assert reference.novelty(MEANS[0], SURE) == reference.novelty(MEANS[0], -SURE)


def test_a_step_in_a_direction_without_spread_counts_more() -> None:
    along = REFERENCE.distance(MEANS[0] + np.array([0, 0, 1.5, 0], dtype=np.float32))
    across = REFERENCE.distance(MEANS[0] + np.array([0, 0, 0, 1.5], dtype=np.float32))
    assert across > 1.5 * along


def test_of_many_dimensions_those_count_in_which_images_differ() -> None:
    """Without the others, a class mean has a distance of none, and a step within a class its length in spreads."""
    wide = 2 * DIMENSIONS
    labels = np.arange(4 * wide) % 2
    made = RANDOM.normal(size=(4 * wide, wide)).astype(np.float32)
    made[:, 0] += 20 * labels
    reference = Reference.fit(made, labels, made, np.ones((4 * wide, 2), np.float32))
    assert reference.whitening.shape == (DIMENSIONS, wide) and reference.class_means.shape == (2, DIMENSIONS)
    mean, along = made[labels == 0].mean(0), np.eye(wide, dtype=np.float32)[0]
    assert reference.distance(mean) == pytest.approx(0, abs=1e-3)
    assert reference.distance(mean + 3 * along) == pytest.approx(3, abs=0.4)  # between the classes: never left out


def test_saved_statistics_load_as_they_were(tmp_path: Path) -> None:
    REFERENCE.save(tmp_path / "reference.safetensors")
    loaded = Reference.load(tmp_path / "reference.safetensors")
    assert all(np.array_equal(getattr(loaded, name), values) for name, values in vars(REFERENCE).items())


def test_statistics_of_an_older_bundle_are_the_distance_alone(tmp_path: Path) -> None:
    REFERENCE.save(tmp_path / "reference.safetensors")
    tensors = load_file(tmp_path / "reference.safetensors")
    del tensors["logit_weight"]
    save_file(tensors, tmp_path / "reference.safetensors")
    older = Reference.load(tmp_path / "reference.safetensors")
    assert older.strangeness(MEANS[0] + 1, SURE) == older.distance(MEANS[0] + 1)


def test_missing_statistics_are_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"reference\.safetensors"):
        Reference.load(tmp_path / "reference.safetensors")
