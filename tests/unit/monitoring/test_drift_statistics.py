"""The drift check's tests, held against scipy's and against simulation: false-alarm rate and power."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from monitoring.drift import statistics
from monitoring.drift.check import check, no_drift
from monitoring.drift.reference import Reference
from monitoring.drift.sample import FEATURES, Sample
from monitoring.drift.statistics import g_test, g_test_two_samples, ks_test, proportion_test, psi

# 102 labels with 3 to 25 validation images each, as the shipped model has: a stratified split of the mix.
COUNTS = np.sort(np.random.default_rng(7).lognormal(1.85, 0.5, 102).round().clip(3, 25).astype(np.int64))
MIX = COUNTS / COUNTS.sum()
# The level that a single feature of eight must reach under Holm's correction for 1 % per window.
LEVEL = 0.01 / 8


def test_the_ks_test_is_that_of_scipy() -> None:
    rng = np.random.default_rng(3)
    for count in (50, 200, 1000):
        one, other = rng.normal(size=736), rng.normal(0.2, 1.1, count)
        gap, p_value = ks_test(one, other)
        expected = stats.ks_2samp(one, other)
        assert gap == pytest.approx(expected.statistic)
        assert p_value == pytest.approx(expected.pvalue, rel=0.25)


def test_ties_make_the_gap_no_larger() -> None:
    ones = np.ones(736)
    assert ks_test(ones, np.ones(50)) == (0.0, 1.0)
    gap, p_value = ks_test(ones, np.concatenate([np.ones(40), np.full(10, 0.5)]))
    assert gap == pytest.approx(0.2)
    assert p_value < 0.05


def test_the_proportion_test_is_fishers() -> None:
    reference, window = np.arange(736) < 37, np.arange(200) < 25
    share, p_value = proportion_test(reference, window)
    assert share == 0.125
    assert p_value == pytest.approx(stats.fisher_exact([[25, 175], [37, 699]], alternative="greater").pvalue)
    assert proportion_test(reference, np.zeros(50, bool))[1] == pytest.approx(1)


def test_psi_is_the_sum_over_the_labels() -> None:
    p, q = np.array([10.5, 20.5]) / 31, np.array([20.5, 10.5]) / 31
    assert psi(np.array([10, 20]), np.array([20, 10])) == pytest.approx(float(((q - p) * np.log(q / p)).sum()))
    assert psi(np.array([10, 20]), np.array([10, 20])) == pytest.approx(0)


def one_label_grows() -> np.ndarray:
    """One label from 1 % of the images to 6 %."""
    mix = MIX.copy()
    mix[np.abs(MIX - 0.01).argmin()] = 0
    mix *= 0.94 / mix.sum()
    return np.where(mix == 0, 0.06, mix)


def a_tenth_of_the_labels_is_gone() -> np.ndarray:
    mix: np.ndarray = np.where(np.arange(102) % 10 == 0, 0, MIX)
    mix /= mix.sum()
    return mix


def rejected(
    test: Callable[[np.ndarray], float], mix: np.ndarray, size: int, level: float, windows: int = 400
) -> float:
    """Return the share of windows of a mix whose p-value reaches a level."""
    rng = np.random.default_rng(size)
    return float(np.mean([test(rng.multinomial(size, mix)) <= level for _ in range(windows)]))


@pytest.mark.parametrize("size", [50, 200, 1000])
def test_the_label_mix_raises_as_many_false_alarms_as_promised(size: int) -> None:
    p_values = [g_test(COUNTS, window) for window in np.random.default_rng(1).multinomial(size, MIX, 1000)]
    assert np.median(p_values) == pytest.approx(0.5, abs=0.07)  # it was 0.95 to 1 while the reference was simulated too
    assert np.mean(np.array(p_values) <= 0.05) == pytest.approx(0.05, abs=0.021)  # three standard deviations of 1000


@pytest.mark.parametrize(
    ("mix", "size", "power", "power_before"),
    [(one_label_grows(), 1000, 0.95, 0.5), (a_tenth_of_the_labels_is_gone(), 1000, 0.95, 1)],
    ids=["one label 1 to 6 %", "a tenth of the labels gone"],
)
def test_a_changed_label_mix_is_detected_and_by_g_more_often_than_by_psi(
    mix: np.ndarray, size: int, power: float, power_before: float
) -> None:
    null = np.sort([psi(COUNTS, window) for window in np.random.default_rng(2).multinomial(size, MIX, 4000)])
    threshold = null[int(len(null) * (1 - LEVEL))]
    rng = np.random.default_rng(3)
    by_psi = np.mean([psi(COUNTS, window) > threshold for window in rng.multinomial(size, mix, 400)])
    by_g = rejected(lambda window: g_test(COUNTS, window), mix, size, LEVEL)
    assert by_g > power
    assert by_g >= by_psi - 0.02
    # Simulating the reference too, as if a stratified split were a random draw, hides the change.
    both = np.sort(
        [psi(*pair) for pair in zip(*(rng.multinomial(n, MIX, 4000) for n in (COUNTS.sum(), size)), strict=True)]
    )
    blind = both[int(len(both) * (1 - LEVEL))]
    assert np.mean([psi(COUNTS, window) > blind for window in rng.multinomial(size, mix, 400)]) <= power_before


def test_one_label_that_grows_is_detected_where_the_sum_over_all_labels_hides_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By G alone: 7 % of windows of 200, and 8 % of 1,000 against a reference that is a random draw."""
    assert rejected(lambda window: g_test(COUNTS, window), one_label_grows(), 200, LEVEL) > 0.5
    monkeypatch.setattr(statistics, "_DRAWS", 2000)
    rng = np.random.default_rng(8)
    pairs = [(rng.multinomial(736, MIX), rng.multinomial(1000, one_label_grows())) for _ in range(40)]
    assert np.mean([g_test_two_samples(*pair) <= LEVEL for pair in pairs]) > 0.6


def test_the_smallest_p_value_is_one_of_all_simulated_windows() -> None:
    only_one = np.bincount([0] * 200, minlength=102)
    assert g_test(COUNTS, only_one) == g_test_two_samples(COUNTS, only_one) == pytest.approx(1 / 10_001)


def test_a_reference_that_is_a_random_draw_itself_raises_no_more_false_alarms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Held fixed, such a reference would alarm in most windows: its own error is taken for a change."""
    monkeypatch.setattr(statistics, "_DRAWS", 300)
    rng = np.random.default_rng(4)
    pairs = [(rng.multinomial(736, MIX), rng.multinomial(200, MIX)) for _ in range(150)]
    assert np.mean([g_test_two_samples(*pair) <= 0.05 for pair in pairs]) < 0.05 + 3 * 0.018
    assert np.mean([g_test(*pair) <= 0.05 for pair in pairs]) > 0.4


def test_false_alarms_of_a_window_stay_below_the_promised_rate() -> None:
    """Eight features together, a new reference each time: the promise is an average over references."""
    rng = np.random.default_rng(5)

    def sample(label: np.ndarray) -> Sample:
        return Sample({name: rng.random(len(label)).astype(np.float32) for name in FEATURES}, label)

    def false_alarm(size: int) -> bool:
        reference = sample(np.repeat(np.arange(102), COUNTS))
        window = sample(rng.choice(102, size, p=MIX))
        names = tuple(f"label {index}" for index in range(102))
        return not no_drift(check(Reference(reference, names, "drawn", "1.0", stratified=True), window, alpha=0.05))

    for size in (50, 200, 1000):
        assert np.mean([false_alarm(size) for _ in range(400)]) < 0.05 + 3 * 0.011, size


def test_looking_at_a_growing_window_would_break_the_promise_and_full_windows_do_not() -> None:
    """Why the check tests full windows only: the reason, measured."""
    rng = np.random.default_rng(6)
    reference = np.linspace(0, 1, 5000)
    growing = full = 0
    for _ in range(300):
        window = rng.random(1000)
        looks = [ks_test(reference, window[:count])[1] <= 0.05 for count in range(100, 1001, 100)]
        growing += any(looks)
        full += looks[-1]
    assert full / 300 < 0.05 + 3 * 0.0126
    assert growing / 300 > 0.1
