"""Figures: held against values worked out by hand."""

import numpy as np
import pytest

from training.evaluation import metrics
from training.evaluation.calibration import (
    FEWEST,
    calibration_error,
    choose_temperature,
    fit_temperature,
    negative_log_likelihood,
    probabilities,
    reliability,
)
from training.evaluation.intervals import wilson


def test_the_temperature_that_decalibrated_logits_is_recovered() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(scale=2.0, size=(4000, 5))
    targets = np.array([generator.choice(5, p=row) for row in probabilities(logits)])
    assert fit_temperature(3.0 * logits, targets) == pytest.approx(3.0, rel=0.1)


def test_a_temperature_is_fitted_only_where_it_helps_on_images_that_it_was_not_fitted_on() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(scale=2.0, size=(400, 5))
    targets = np.array([generator.choice(5, p=row) for row in probabilities(logits)])
    fitted, why_not = choose_temperature(3.0 * logits, targets)
    assert (fitted, why_not) == (fit_temperature(3.0 * logits, targets), "")
    kept, why_not = choose_temperature(3.0 * logits[: FEWEST - 1], targets[: FEWEST - 1])
    assert (kept, why_not[:20]) == (1.0, "29 validation images")
    # Nine of ten folds call for confidence, the tenth for doubt: what is fitted on the others does harm on each.
    assert choose_temperature(logits / fit_temperature(logits, targets), targets)[0] == 1.0


def test_a_temperature_never_changes_the_answer() -> None:
    logits = np.random.default_rng(1).normal(size=(50, 4))
    assert (probabilities(logits, 2.5).argmax(1) == logits.argmax(1)).all()


def test_the_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    found = np.array([[0.9, 0.1]] * 10)
    assert calibration_error(found, np.array([0] * 9 + [1])) == pytest.approx(0.0)
    assert calibration_error(found, np.array([0] * 5 + [1] * 5)) == pytest.approx(0.4)


def test_every_photograph_falls_in_one_bin() -> None:
    found = probabilities(np.random.default_rng(2).normal(scale=3, size=(300, 6)))
    assert reliability(found, np.zeros(300, int))[:, 0].sum() == 300


def test_the_likelihood_of_a_certain_right_answer_costs_nothing() -> None:
    assert negative_log_likelihood(np.array([[1.0, 0.0]]), np.array([0])) == 0.0
    assert np.isfinite(negative_log_likelihood(np.array([[1.0, 0.0]]), np.array([1])))


def test_wilson_intervals_are_the_published_ones() -> None:
    # Newcombe 1998, table I, method 3: 81 of 263 and 0 of 20.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_confusion_has_a_row_per_true_label() -> None:
    logits = np.eye(3)[[0, 2, 2, 1]]
    assert metrics.confusion(logits, np.array([0, 1, 1, 1])).tolist() == [[1, 0, 0], [0, 1, 2], [0, 0, 0]]


def test_a_label_without_photographs_has_no_accuracy() -> None:
    rows = metrics.per_label(np.eye(3)[[0, 1]], np.array([0, 0]))
    assert [row["accuracy"] for row in rows] == [0.5, None, None]


def test_the_recall_of_a_label_from_one_group_says_nothing_of_others() -> None:
    logits, targets = np.eye(2)[[0] * 10 + [1] * 10], np.array([0] * 10 + [1] * 10)
    one, several = metrics.per_label(logits, targets, ["a"] * 10 + [*"bcdefghijk"])
    assert one["interval"] == [0.0, 1.0]
    assert several["interval"][0] > 0.5
    assert metrics.per_label(logits, targets)[0]["interval"] == [pytest.approx(0.7225, abs=1e-4), 1.0]  # Wilson's


def test_top_k_counts_the_label_among_the_best() -> None:
    logits = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    assert [metrics.top_k(logits, np.array([1, 2]), k) for k in (1, 2, 3)] == [0.0, 0.5, 1.0]


def test_separation_is_one_when_all_outside_values_are_higher_and_a_half_for_the_same() -> None:
    low, high = np.arange(5.0), np.arange(5.0) + 10
    assert metrics.separation(low, high) == 1.0
    assert metrics.separation(low, low) == 0.5
    assert metrics.separation(high, low) == 0.0


def test_the_reliability_of_a_summary_counts_every_photograph_once() -> None:
    generator = np.random.default_rng(3)
    logits, targets = generator.normal(size=(200, 5)) * 2, generator.integers(0, 5, 200)
    found = metrics.summarise(logits, targets, temperature=1.0)
    rows = np.array(found["reliability"])
    assert rows[:, 0].sum() == 200
    assert (rows[:, 0] * rows[:, 2]).sum() / 200 == pytest.approx(found["top1"], abs=1e-3)
    assert (np.diff(rows[:, 1]) > 0).all()
