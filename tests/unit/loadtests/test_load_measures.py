import itertools
import math
import random

import numpy as np
import pytest

from loadtests.load import shapes
from loadtests.load.shapes import Stage
from loadtests.results import report, summary
from loadtests.results.run_record import RunRecord
from loadtests.results.stats import Histogram, RequestStats, percentile
from loadtests.results.summary import Slo
from loadtests.results.validation import Outcome


def _filled(values: list[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


@pytest.mark.parametrize("share", [0.01, 0.5, 0.95, 0.99, 1.0])
def test_a_histograms_percentiles_are_right_to_one_per_cent(share: float) -> None:
    source = random.Random(1)
    values = [source.lognormvariate(3, 1) for _ in range(5000)]
    exact = float(np.percentile(values, share * 100, method="inverted_cdf"))
    assert _filled(values).percentile(share) == pytest.approx(exact, rel=0.0101)
    assert percentile(values, share) == exact


def test_a_merged_histogram_is_that_of_all_values() -> None:
    first, second = [1.0, 5.0, 9.5], [0.2, 700.0]
    merged = _filled(first)
    merged.merge(_filled(second))
    assert merged == _filled(first + second)
    assert (merged.count, merged.shortest_ms, merged.longest_ms) == (5, 0.2, 700.0)


def test_one_value_is_every_percentile_and_none_is_not_a_number() -> None:
    assert [_filled([12.5]).percentile(share) for share in (0.0, 0.5, 1.0)] == [12.5, 12.5, 12.5]
    assert math.isnan(Histogram().percentile(0.99))
    assert math.isnan(percentile([], 0.5))


def test_statistics_survive_json_and_keep_seconds_apart() -> None:
    stats = RequestStats(cpu_s={"generator 0": {10: 0.5, 11: 0.25}})
    stats.record(10.9, Outcome("ok", timings={"decode": 1.0, "inference": 2.0, "total": 4.0}), 12.0, 9.0)
    stats.record(11.0, Outcome("failed", "status 503"), 40.0, 40.0)
    again = RequestStats.from_json(stats.to_json())
    assert again == stats
    assert dict(again.between(10, 11).outcomes) == {"ok": 1}
    assert dict(again.between(11, 12).reasons) == {"status 503": 1}


def test_statistics_without_an_answer_survive_json() -> None:
    stats = RequestStats()
    stats.record(1, Outcome("rejected"), 3.0, 3.0)
    assert RequestStats.from_json(stats.to_json()) == stats


def test_poisson_arrivals_have_the_rate_and_the_spread_of_independent_clients() -> None:
    times = list(shapes.poisson([Stage("all", 200, 100)], seed=3))
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    per_second = np.bincount(np.array(times, int), minlength=100)
    # 20,000 arrivals: a standard deviation of the count is 141; of the gaps' variation coefficient about 0.01.
    assert abs(len(times) - 20_000) < 5 * 141
    assert np.std(gaps) / np.mean(gaps) == pytest.approx(1.0, abs=0.05)
    assert np.var(per_second) / np.mean(per_second) == pytest.approx(1.0, abs=0.6)
    assert times == sorted(times)
    assert times != list(shapes.poisson([Stage("all", 200, 100)], seed=4))


def test_arrivals_follow_the_levels_of_the_stages() -> None:
    stages = [Stage("low", 50, 20), Stage("none", 0, 5), Stage("high", 400, 20)]
    times = np.array(list(shapes.poisson(stages)))
    low, none, high = ((times >= a) & (times < b) for a, b in ((0, 20), (20, 25), (25, 45)))
    assert none.sum() == 0
    assert abs(low.sum() - 1000) < 5 * math.sqrt(1000)
    assert abs(high.sum() - 8000) < 5 * math.sqrt(8000)
    assert low.sum() + high.sum() == len(times)


def test_even_arrivals_are_evenly_spaced() -> None:
    times = list(shapes.even([Stage("a", 2, 2), Stage("b", 0, 1), Stage("c", 1, 2)]))
    assert times == [0.25, 0.75, 1.25, 1.75, 3.5, 4.5]


def test_steps_go_up_and_are_judged_to_the_level_that_must_hold() -> None:
    stages = shapes.steps(20, 80, 20, 5, hold=40)
    assert [(stage.level, stage.judged) for stage in stages] == [(20, True), (40, True), (60, False), (80, False)]
    assert [stage.judged for stage in shapes.steps(20, 40, 20, 5)] == [True, False]


def test_a_spike_is_judged_by_what_comes_before_and_after_it() -> None:
    stages = shapes.spike(50, 300, 20)
    assert [stage.name for stage in stages if stage.judged] == ["before", "after"]
    assert max(stages, key=lambda stage: stage.level).name == "spike"


def test_a_soak_keeps_its_whole_time_in_parts() -> None:
    assert sum(stage.seconds for stage in shapes.soak(10, 47)) == 47
    assert sum(stage.seconds for stage in shapes.soak(10, 3)) == 3


def test_stages_survive_a_command_line() -> None:
    stages = shapes.from_text(shapes.to_text([Stage("a", 12.5, 3), Stage("b", 4, 1)]))
    assert [(stage.level, stage.seconds) for stage in stages] == [(12.5, 3), (4, 1)]
    assert [shapes.level_at(stages, at) for at in (0, 2.9, 3.0, 4.0)] == [12.5, 12.5, 4, None]


@pytest.mark.parametrize("text", ["", "5", "5x", "ax3", "5x0", "-1x3"])
def test_stages_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="LEVELxSECONDS"):
        shapes.from_text(text)


def test_failures_are_not_in_the_percentiles_of_answers() -> None:
    stats = RequestStats()
    for _ in range(600):
        stats.record(5.0, Outcome("failed", "status 429 overloaded"), 1.0, 1.0)
    for _ in range(400):
        stats.record(5.0, Outcome("ok"), 178.0, 178.0)
    (point,) = summary.points(_record([Stage("constant", 1000, 1)], [5.0], stats))
    assert point.p50_ms == pytest.approx(178, rel=0.01)
    assert point.failed_p50_ms == pytest.approx(1, rel=0.01)
    assert point.error_share == 0.6
    row = dict(zip(*report.table(_record([Stage("constant", 1000, 1)], [5.0], stats)), strict=True))
    assert (row["p50"], row["failed, p50"], row["errors"]) == ("178", "1.0", "600 (60.00%)")


def test_a_percentile_of_few_answers_is_called_the_longest() -> None:
    stats = RequestStats()
    for number in range(199):
        stats.record(5.0 if number < 99 else 6.0, Outcome("ok"), 5.0, 5.0)
    record = _record([Stage("step 1", 99, 1), Stage("step 2", 100, 1)], [5.0, 6.0], stats)
    assert "Fewer than 100 answers, of which p99 is the longest: step 1 99 (99)." in report.sentences(record)


def test_requests_without_any_answer_miss_the_targets() -> None:
    stats = RequestStats()
    stats.record(5.0, Outcome("failed", "no connection"), 0.1, 0.1)
    (point,) = summary.points(_record([Stage("constant", 1, 1)], [5.0], stats))
    assert math.isnan(point.p99_ms)
    assert not point.meets(Slo(100, 1.0))


def test_a_saturated_generator_is_named_with_its_stages_only() -> None:
    stages, stats = [Stage("step 1", 50, 10), Stage("step 2", 100, 10)], RequestStats()
    for second in range(20):
        stats.record(float(second), Outcome("ok"), 5.0, 5.0)
        # Over the whole run neither process uses more than 0.6 of a core.
        stats.record_cpu(second, "generator 0", 0.2 if second < 10 else 0.95)
        stats.record_cpu(second, "generator 1", 0.1)
    record = _record(stages, [0.0, 10.0], stats)
    assert [round(point.generator_share, 2) for point in summary.points(record)] == [0.2, 0.95]
    caution = summary.bottleneck(summary.points(record), "open")
    assert caution is not None
    assert "step 2 at 100 (95%)" in caution and "step 1" not in caution
    assert caution in report.markdown(record)


def test_cpu_time_that_was_read_late_is_spread_over_its_seconds() -> None:
    stats = RequestStats()
    stats.record_cpu(3, "generator", 0.9, seconds=3)
    assert stats.cpu_shares(3, 6) == {"generator": pytest.approx(0.3)}
    assert stats.cpu_shares(3, 4) == {"generator": pytest.approx(0.3)}


def _record(stages: list[Stage], starts_s: list[float], stats: RequestStats) -> RunRecord:
    targets = {"p99_ms": 100.0, "error_share": 0.001}
    return RunRecord("open", "steps", "http://x", "poisson", stages, targets, "", starts_s=starts_s, stats=stats)
