"""Intervals hold the truth as often as they say: measured by simulation, with fixed seeds."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import binom, binomtest, norm

from training.evaluation import intervals
from training.evaluation.calibration import by_confidence, confidence_error, debiased_error


def model(
    count: int, rng: np.random.Generator, logit_scale: float = 1.0, hard: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return confidences (N,) and whether each was right, of a model as accurate as the shipped one, or of a weak one.

    With a scale of 1 it is perfectly calibrated; above, overconfident.
    """
    accuracy = rng.uniform(0.3, 1 - 1e-6, count) if hard else np.clip(1 - rng.beta(0.25, 6, count), 0.02, 1 - 1e-9)
    logit = np.log(accuracy / (1 - accuracy))
    return 1 / (1 + np.exp(-logit_scale * logit)), rng.random(count) < accuracy


def losses(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return the losses of such a model, (N,): mostly near 0, a few large."""
    confidence, right = model(count, rng)
    wrong = -np.log(np.maximum((1 - confidence) * rng.beta(0.6, 0.8, count), 1e-12))
    result: np.ndarray = np.where(right, -np.log(confidence), wrong)
    return result


def coverage(truth: float, interval: Callable[[np.random.Generator], tuple[float, ...]], repetitions: int) -> float:
    """Return the share of repetitions whose interval holds the truth."""
    rng = np.random.default_rng(7)
    bounds = [interval(rng)[-2:] for _ in range(repetitions)]
    return float(np.mean([low - 1e-12 <= truth <= high + 1e-12 for low, high in bounds]))


@pytest.mark.parametrize("count", [12, 50, 736])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.977])
def test_wilsons_interval_of_a_share_holds_it(count: int, share: float) -> None:
    around = range(max(0, int(count * share - 60)), min(count, int(count * share + 60)) + 1)
    bounds = {right: intervals.wilson(right, count) for right in around}
    held = [binom.pmf(right, count, share) for right, (low, high) in bounds.items() if low <= share <= high]
    assert 0.87 <= sum(held) <= 1  # the discreteness of few images; the mean over shares is 0.95


def test_all_right_of_twelve_is_not_certainty() -> None:
    low, high = intervals.wilson(12, 12)
    assert (round(low, 3), high) == (0.758, 1.0)


@pytest.mark.parametrize("count", [50, 200, 736])
@pytest.mark.parametrize(("only_first", "only_second"), [(0.02, 0.02), (0.05, 0.01), (0.10, 0.10)])
def test_tangos_interval_of_a_paired_difference_holds_it(count: int, only_first: float, only_second: float) -> None:
    def interval(rng: np.random.Generator) -> tuple[float, float]:
        first, second, _ = rng.multinomial(count, [only_first, only_second, 1 - only_first - only_second])
        return intervals.paired_difference(int(first), int(second), count)

    assert 0.93 <= coverage(only_first - only_second, interval, 300) <= 1


def test_tangos_bounds_are_where_the_score_test_just_rejects() -> None:
    first, second, count = 12, 2, 50
    for bound, sign in zip(intervals.paired_difference(first, second, count), (1, -1), strict=True):

        def surprise(share: float, delta: float = bound) -> float:  # negative log likelihood; share: only the second
            rest = count - first - second
            return -float(first * np.log(share + delta) + second * np.log(share) + rest * np.log(1 - 2 * share - delta))

        best = minimize_scalar(surprise, bounds=(max(0, -bound) + 1e-9, (1 - bound) / 2 - 1e-9), method="bounded").x
        variance = count * (2 * best + bound - bound**2)
        assert (first - second - count * bound) / np.sqrt(variance) == pytest.approx(sign * 1.96, abs=0.005)
    low, high = intervals.paired_difference(first, second, count)
    assert intervals.paired_difference(second, first, count) == pytest.approx((-high, -low))


@pytest.mark.parametrize("count", [200, 736])
def test_the_interval_of_a_mean_of_losses_holds_it(count: int) -> None:
    truth = float(losses(2_000_000, np.random.default_rng(0)).mean())

    def interval(rng: np.random.Generator) -> tuple[float, float]:
        return intervals.mean_interval(losses(count, rng), resamples=300)

    assert 0.92 <= coverage(truth, interval, 200) <= 0.98


@pytest.mark.parametrize("count", [50, 736])
@pytest.mark.parametrize(("logit_scale", "hard"), [(1.0, False), (1.0, True), (1.5, False), (0.6, False), (1.5, True)])
def test_the_interval_of_the_calibration_error_holds_it(count: int, logit_scale: float, hard: bool) -> None:
    confidence, right = model(2_000_000, np.random.default_rng(0), logit_scale, hard)
    truth = 0.0 if logit_scale == 1 else debiased_error(confidence, right)[0]

    def interval(rng: np.random.Generator) -> tuple[float, ...]:
        return debiased_error(*model(count, rng, logit_scale, hard))

    assert coverage(truth, interval, 150) >= 0.9  # 0.95 but for three standard errors of 150 repetitions


def test_the_debiased_error_lies_in_its_interval_and_below_the_plain_one() -> None:
    rng = np.random.default_rng(3)
    plain, debiased = [], []
    for _ in range(50):
        confidence, right = model(736, rng)
        estimate, low, high = debiased_error(confidence, right)
        assert low <= estimate <= high
        plain.append(confidence_error(by_confidence(confidence, right)))
        debiased.append(estimate)
    assert np.mean(debiased) < 0.7 * np.mean(plain)


def test_a_perfect_models_interval_begins_at_zero() -> None:
    rng = np.random.default_rng(5)
    begins = [debiased_error(*model(736, rng))[1] for _ in range(100)]
    assert np.mean(np.array(begins) == 0) >= 0.93


def test_a_lucky_sample_does_not_prove_perfect_calibration() -> None:
    rng = np.random.default_rng(11)
    highest = []
    for _ in range(60):
        confidence, right = model(736, rng)
        highest.append(debiased_error(confidence, right)[2])
    assert min(highest) > 0.002


def test_a_bin_without_a_mistake_is_not_certain() -> None:
    estimate, low, high = debiased_error(np.full(20, 0.97), np.full(20, True))
    assert low == 0.0
    assert estimate < 0.03 < high


@pytest.mark.parametrize(("accuracy", "alike"), [(0.73, 0.1), (0.95, 0.1), (0.73, 0.3)])
@pytest.mark.parametrize("count", [2, 5, 12, 41])
def test_the_interval_of_images_in_groups_holds_the_share(count: int, accuracy: float, alike: float) -> None:
    spread = 1 / alike - 1

    def interval(rng: np.random.Generator) -> tuple[float, float]:
        sizes, shares = rng.geometric(0.2, count), rng.beta(accuracy * spread, (1 - accuracy) * spread, count)
        of_group = np.repeat(np.arange(count), sizes)
        return intervals.share(rng.random(len(of_group)) < shares[of_group], of_group.astype(str).tolist())

    assert coverage(accuracy, interval, 300) >= 0.88  # drawing whole groups again: 0.32 of 2 groups, 0.86 of 41


def test_groups_that_are_all_right_do_not_prove_perfection_and_one_group_proves_nothing() -> None:
    right = np.ones(12, bool)
    assert intervals.share(right, ["a"] * 12) == (0, 1)
    low, high = intervals.share(right, list("aabbccddeeff"))
    assert low < 0.5 < high == 1
    assert intervals.share(right)[0] == pytest.approx(0.758, abs=0.001)


@pytest.mark.parametrize("count", [12, 41])
def test_the_interval_of_a_difference_holds_it_where_images_come_in_groups(count: int) -> None:
    def pair(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[str]]:
        of_group = np.repeat(np.arange(count), rng.geometric(0.2, count))
        same = rng.random(len(of_group)) < 0.84
        ahead = rng.random(len(of_group)) < rng.beta(0.5, 0.5, count)[of_group]  # of one group mostly one model
        return same | ahead, same | ~ahead, of_group.astype(str).tolist()

    assert coverage(0, lambda rng: intervals.paired(*pair(rng)), 200) >= 0.92
    assert coverage(0, lambda rng: intervals.paired(*pair(rng)[:2]), 200) < 0.9  # as if they were independent


def test_groups_widen_the_interval_of_the_calibration_error() -> None:
    rng = np.random.default_rng(2)
    confidence, right = model(200, rng, hard=True)
    independent = debiased_error(confidence, right)
    grouped = debiased_error(confidence, right, effect=3.0)
    assert grouped[2] > independent[2]
    assert debiased_error(confidence, right, effect=np.inf)[1:] == (0, 1)


@pytest.mark.parametrize(
    ("inside", "outside", "distance", "spread"),
    [(736, 400, 3, 1), (736, 400, 1, 1), (50, 30, 3.5, 1), (200, 12, 2.5, 1), (736, 282, 4.5, 1), (736, 300, 2.5, 2)],
)
def test_intervals_of_two_samples_hold_area_and_share_below_a_quantile(
    inside: int, outside: int, distance: float, spread: float
) -> None:
    def samples(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return rng.standard_normal(inside), rng.normal(distance, spread, outside)

    truth = norm.cdf(distance / np.hypot(1, spread))
    assert coverage(truth, lambda rng: intervals.area(*samples(rng)), 300) >= 0.92  # bootstrap: 0.73-0.97
    truth = norm.cdf((norm.ppf(0.95) - distance) / spread)
    assert (
        coverage(truth, lambda rng: intervals.below_quantile(*samples(rng), 0.95), 300) >= 0.92
    )  # bootstrap: 0.63-0.97


def test_values_that_are_completely_separate_have_an_interval() -> None:
    inside, outside = np.arange(20.0), np.arange(100.0, 112)
    low, high = intervals.area(inside, outside)
    assert 0.7 < low < high == 1
    assert intervals.area(outside, inside) == pytest.approx((0, 1 - low))
    assert intervals.below_quantile(inside, outside, 0.95)[1] > 0.2
    assert intervals.area(np.zeros(5), np.zeros(7))[0] < 0.5 < intervals.area(np.zeros(5), np.zeros(7))[1]
    assert intervals.area(np.zeros(1), np.ones(1))[1] == 1


@pytest.mark.parametrize(("right", "count"), [(81, 263), (0, 20), (20, 20), (1, 1), (719, 736)])
def test_wilsons_interval_is_scipys(right: int, count: int) -> None:
    assert intervals.wilson(right, count) == pytest.approx(tuple(binomtest(right, count).proportion_ci(0.95, "wilson")))
    assert intervals.wilson(0, 0) == (0, 1)


def test_every_resample_has_as_many_images_as_there_are_and_follows_from_the_seed() -> None:
    one, same, other = (np.concatenate(list(intervals.weights(9, 50, seed))) for seed in (1, 1, 2))
    assert one.shape == (50, 9)
    assert (one.sum(1) == 9).all()
    assert (one == same).all()
    assert (one != other).any()


def test_many_images_are_drawn_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "_CELLS", 20)
    assert [len(piece) for piece in intervals.weights(9, resamples=5)] == [2, 2, 1]


def test_equal_values_have_no_interval() -> None:
    assert intervals.mean_interval(np.full(5, 0.25)) == (0.25, 0.25)
