"""Figures of the evaluation report: held against scikit-learn, against slower ways, and against values by hand."""

import numpy as np
import pytest
from sklearn.metrics import (
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
)

from training.evaluation import metrics, selective
from training.evaluation.calibration import equal_mass_error, probabilities
from training.evaluation.report.accuracy import compare, mcnemar

ROUNDING = 0.5e-4 + 1e-12


def answers(count: int, classes: int, seed: int = 0, skill: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, C) that are right more often than not, and label indices (N,)."""
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, classes, count)
    return generator.normal(size=(count, classes)) + skill * np.eye(classes)[targets], targets


def test_the_figures_of_a_split_are_those_of_scikit_learn() -> None:
    logits, targets = answers(300, 6)
    found, said, calibrated = metrics.summarise(logits, targets, 0.7), logits.argmax(1), probabilities(logits, 0.7)
    assert found["macro_f1"] == pytest.approx(f1_score(targets, said, average="macro"), abs=ROUNDING)
    assert found["weighted_f1"] == pytest.approx(f1_score(targets, said, average="weighted"), abs=ROUNDING)
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(targets, said), abs=2 * ROUNDING)
    assert found["negative_log_likelihood"] == pytest.approx(log_loss(targets, calibrated), abs=ROUNDING)
    brier = brier_score_loss(targets, calibrated, labels=range(6), scale_by_half=False)
    assert found["brier"] == pytest.approx(brier, abs=ROUNDING)
    raw = log_loss(targets, probabilities(logits))
    assert found["negative_log_likelihood_before_temperature"] == pytest.approx(raw, abs=ROUNDING)


def test_the_figures_of_every_label_are_those_of_scikit_learn() -> None:
    logits, targets = answers(200, 5, seed=1)
    expected = np.stack(precision_recall_fscore_support(targets, logits.argmax(1)))
    for row, column in zip(metrics.per_label(logits, targets), expected.T, strict=True):
        assert [row[name] for name in ("precision", "accuracy", "f1", "count")] == pytest.approx(column, abs=ROUNDING)


def test_labels_without_photographs_do_not_count_in_the_macro_f1() -> None:
    logits, targets = answers(200, 6, seed=2)
    targets[targets > 3] = 0
    expected = f1_score(targets, logits.argmax(1), average="macro", labels=range(4))
    assert metrics.summarise(logits, targets, 1.0)["macro_f1"] == pytest.approx(expected, abs=ROUNDING)


def test_of_two_labels_both_are_among_the_best_five() -> None:
    logits, targets = answers(20, 2)
    assert metrics.summarise(logits, targets, 1.0)["top5"] == 1.0


def test_bins_of_equally_many_photographs_are_compared_one_by_one() -> None:
    # Two bins of two: 0.6 and 0.7 with one right, 0.8 and 0.9 with both right.
    sure = np.array([0.9, 0.6, 0.8, 0.7])
    found = np.stack([sure, 1 - sure], axis=1)
    error = equal_mass_error(found, np.array([0, 1, 0, 0]), bins=2)
    assert error == pytest.approx((abs(1.3 - 1) + abs(1.7 - 2)) / 4)
    assert equal_mass_error(found[:1], np.array([0])) == pytest.approx(0.1)


def test_the_risk_of_the_surest_answers_counts_the_wrong_among_them() -> None:
    confidence, right = np.array([0.9, 0.5, 0.8, 0.6]), np.array([True, False, False, True])
    assert selective.risks(confidence, right) == pytest.approx([0, 1 / 2, 1 / 3, 2 / 4])
    assert selective.area(confidence, right) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)


def test_answers_that_are_equally_sure_come_in_no_order() -> None:
    confidence = np.array([1.0, 1.0, 1.0, 1.0])
    for right in ([True, True, True, False], [False, True, True, True]):
        assert selective.risks(confidence, np.array(right)) == pytest.approx([0.25] * 4)


@pytest.mark.parametrize(
    ("coverage", "threshold", "answered", "accuracy"),
    [(1.0, 0.2, 5, 0.6), (0.8, 0.7, 4, 0.75), (0.6, 0.8, 3, 1.0), (0.5, 0.8, 3, 1.0), (0.2, 0.8, 3, 1.0)],
)
def test_a_threshold_keeps_the_requested_coverage(
    coverage: float, threshold: float, answered: int, accuracy: float
) -> None:
    confidence, right = np.array([0.8, 0.8, 0.2, 0.8, 0.7]), np.array([True, True, False, True, False])
    row = selective.at(selective.threshold_for(coverage, confidence), confidence, right)
    assert (row["threshold"], row["answered"], row["accuracy"]) == (threshold, answered, accuracy)


def test_the_image_at_the_boundary_reaches_the_threshold_as_it_is_stated() -> None:
    confidence = np.random.default_rng(0).uniform(0.3, 1, 999)
    for coverage in selective.COVERAGES:
        threshold = selective.threshold_for(coverage, confidence)
        assert threshold == round(threshold, 4)
        assert (confidence >= threshold).mean() >= coverage


def test_a_threshold_that_nothing_reaches_answers_nothing() -> None:
    row = selective.at(0.9, np.array([0.5]), np.array([True]))
    assert (row["answered"], row["accuracy"], row["accuracy_interval"]) == (0, None, None)


def test_mcnemar_is_exact() -> None:
    assert mcnemar(1, 8) == pytest.approx(2 * (1 + 9) / 2**9, abs=ROUNDING)
    assert mcnemar(8, 1) == mcnemar(1, 8)
    assert mcnemar(0, 0) == 1.0


def test_a_network_beside_itself_does_not_differ() -> None:
    logits, targets = answers(50, 3)
    found = compare(logits, logits, targets, 1.0)
    assert found["agreement"] == 1.0
    low, high = found["top1_difference_interval"]
    assert low == -high, "50 images without a difference do not prove that there is none"
    assert 0.05 < high < 0.1
    assert found["negative_log_likelihood_difference_interval"] == [0.0, 0.0]


def test_differences_are_those_of_the_same_photographs() -> None:
    targets = np.zeros(100, int)
    one, other = np.tile([1.0, 0.0], (100, 1)), np.tile([1.0, 0.0], (100, 1))
    one[:10], other[5:8] = [0.0, 1.0], [0.0, 1.0]
    found = compare(one, other, targets, 1.0)
    assert (found["right_only_as_served"], found["right_only_in_fp32"], found["disagreements"]) == (0, 7, 7)
    assert found["top1_difference"] == -0.07
    # Seven of a hundred that differ: as narrow as one proportion, not as wide as the difference of two.
    low, high = found["top1_difference_interval"]
    assert -0.15 <= low <= -0.13
    assert -0.04 <= high <= -0.02
