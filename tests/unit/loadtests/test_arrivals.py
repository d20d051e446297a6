"""Simulations: arrivals are those of independent clients, whatever is sent; several generators are as good as one."""

import math
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest

from loadtests.load import shapes, workers
from loadtests.load.http_client import Target
from loadtests.load.images import EncodedImage
from loadtests.load.openloop import Limits
from loadtests.load.shapes import Stage
from loadtests.load.workload import Workload
from loadtests.results import summary
from loadtests.results.run_record import RunRecord
from tests.unit.loadtests.fake_service import Behaviour, running

# Three sizes, ordered, as a mix of small and large images is.
WEIGHTS = {"small": 0.7, "medium": 0.25, "large": 0.05}
IMAGES = [EncodedImage(name, b"\xff\xd8\xff\xd9", weight) for name, weight in WEIGHTS.items()]
NUMBER = {name: index for index, name in enumerate(WEIGHTS)}


def gaps_and_images(seed: int, process: int = 0, count: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Return the times between arrivals and which image is sent at each, as one generator makes them."""
    due = np.array(list(shapes.poisson([Stage("all", 100, count // 90)], seed, process)))[: count + 1]
    workload = Workload(IMAGES, seed=seed, process=process)
    return np.diff(due), np.array([NUMBER[workload.next().name] for _ in range(len(due) - 1)])


def ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks, the mean one for equal values."""
    ordered = np.sort(values)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / 2


def rank_correlation(left: np.ndarray, right: np.ndarray) -> float:
    return float(np.corrcoef(ranks(left), ranks(right))[0, 1])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_is_sent_does_not_depend_on_when(seed: int) -> None:
    gaps, images = gaps_and_images(seed)
    # The standard deviation of a rank correlation of independent values is 1 / sqrt(n).
    for lag in (0, 1):
        assert abs(rank_correlation(gaps[: len(gaps) - lag], images[lag:])) < 4.5 / math.sqrt(len(gaps))
    large_after_short_gaps = np.mean(images[gaps < np.quantile(gaps, 0.1)] == NUMBER["large"])
    assert large_after_short_gaps == pytest.approx(0.05, abs=5 * math.sqrt(0.05 * 0.95 / (len(gaps) / 10)))


def test_generators_are_independent_of_each_other() -> None:
    (gaps, images), (other_gaps, other_images) = (gaps_and_images(0, process) for process in (0, 1))
    for left, right in ((gaps, other_gaps), (images, other_images), (gaps, other_images)):
        count = min(len(left), len(right))
        assert abs(rank_correlation(left[:count], right[:count])) < 4.5 / math.sqrt(count)


@pytest.mark.parametrize("processes", [1, 3])
def test_gaps_are_exponential_and_counts_are_poisson(processes: int) -> None:
    stage, share = Stage("all", 200, 100), Stage("all", 200 / processes, 100)
    due = np.sort(np.concatenate([list(shapes.poisson([share], 5, process)) for process in range(processes)]))
    gaps = np.sort(np.diff(due))
    cumulative = 1 - np.exp(-stage.level * gaps)
    steps = np.arange(len(gaps) + 1) / len(gaps)
    distance = max(np.max(steps[1:] - cumulative), np.max(cumulative - steps[:-1]))
    assert distance * math.sqrt(len(gaps)) < 1.95  # Kolmogorov-Smirnov, exceeded once in a thousand
    per_second = np.bincount(due.astype(int), minlength=100)
    dispersion = np.sum((per_second - stage.level) ** 2) / stage.level  # chi-squared, 100 degrees of freedom
    assert 61 < dispersion < 150  # once in a thousand on either side


def test_the_mix_of_sizes_is_the_one_that_was_asked_for() -> None:
    _, images = gaps_and_images(3)
    expected = np.array(list(WEIGHTS.values())) * len(images)
    chi_squared = np.sum((np.bincount(images) - expected) ** 2 / expected)
    assert chi_squared < 13.8  # two degrees of freedom, once in a thousand


def test_even_arrivals_of_several_generators_are_those_of_one() -> None:
    stages = [Stage("a", 7, 2), Stage("b", 10, 3)]
    parts = [list(shapes.even(stages, process, 3)) for process in range(3)]
    assert sorted(time for part in parts for time in part) == list(shapes.even(stages))
    assert max(len(part) for part in parts) - min(len(part) for part in parts) <= 1


def test_several_processes_start_together_and_keep_the_stages_apart() -> None:
    stages = [Stage("low", 10, 2), Stage("high", 60, 2), Stage("low again", 10, 2)]
    with running(Behaviour(delay_s=0.0)) as url:
        plan = workers.Plan(Target.parse(url), tuple(IMAGES), {}, 0.0, (0,), "even", Limits(timeout_s=60))
        sent = workers.run(plan, stages, processes=3)
    record = RunRecord("open", "constant", url, "even", stages, {}, "", stats=sent.stats)
    starts = np.cumsum([0, *(stage.seconds for stage in stages[:-1])])
    record.starts_s += [sent.start_s + float(start) for start in starts]
    assert [point.sent_rate for point in summary.points(record)] == [10, 60, 10]
    assert set(sent.stats.cpu_s) == {f"generator {process}" for process in range(3)}


def test_a_generator_process_that_is_killed_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(_future: object) -> workers.Sent:
        raise BrokenProcessPool

    monkeypatch.setattr(workers, "_result", killed)
    plan = workers.Plan(Target.parse("http://127.0.0.1:9/x"), tuple(IMAGES), {}, 0.0, (0,), "even", Limits(1))
    with pytest.raises(workers.GeneratorError, match="fewer --processes"):
        workers.run(plan, [Stage("all", 1, 1)], processes=2)
