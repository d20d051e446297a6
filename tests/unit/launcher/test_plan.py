import re
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.plan import LARGE_BYTES, LEAST_BYTES, SMALL_BYTES, Plan, fit_vmargs, make_plan, share_workers

GB = 1_000_000_000
OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"
SIZES = [LEAST_BYTES, *range(GB, 20 * GB, GB // 20)]
CPUS = [0.1, 0.5, 1, 1.4, 2, 3, 4, 6, 8, 16]


@pytest.mark.parametrize("cpus", CPUS)
def test_every_plan_fits_into_its_memory(cpus: float) -> None:
    for memory in SIZES:
        plan = make_plan(cpus, memory)
        assert plan.total_bytes <= memory, f"{cpus} cores and {memory / 1e6:.0f} MB: {plan}"


@pytest.mark.parametrize("cpus", CPUS)
def test_java_has_room_for_every_body_that_may_be_in_flight(cpus: float) -> None:
    for memory in (*SIZES, None):
        plan = make_plan(cpus, memory)
        bodies = plan.small_places * SMALL_BYTES + plan.large_places * LARGE_BYTES
        assert plan.heap_bytes > bodies
        # The parts of a body that is being put together are there twice.
        assert plan.direct_bytes > bodies + LARGE_BYTES
        assert plan.small_places + plan.large_places < 100


@pytest.mark.parametrize("cpus", CPUS)
def test_more_memory_never_means_fewer_workers(cpus: float) -> None:
    workers = [make_plan(cpus, memory).workers for memory in SIZES]
    assert workers == sorted(workers)


@pytest.mark.parametrize(
    ("cpus", "memory", "workers", "processors"),
    [(0.5, None, 1, 1), (1.4, None, 2, 2), (4, None, 4, 4), (4, 2 * GB, 2, 4), (4, GB, 1, 4), (8, 100_000_000, 1, 8)],
)
def test_workers_follow_cores_and_memory(cpus: float, memory: int | None, workers: int, processors: int) -> None:
    plan = make_plan(cpus, memory)
    assert (plan.workers, plan.processors) == (workers, processors)


@pytest.mark.parametrize("cpus", CPUS)
def test_several_models_share_the_memory_that_one_would_have(cpus: float) -> None:
    for memory in SIZES:
        one = make_plan(cpus, memory)
        for models in (2, 3, 5):
            plan = share_workers(one, models, memory)
            assert 1 <= plan.workers <= one.workers
            assert plan.total_bytes <= memory or plan.workers == 1
            # What the gateway admits and Java holds does not depend on the models.
            assert replace(plan, workers=one.workers, models=1) == one


def test_two_models_do_not_take_twice_the_planned_memory() -> None:
    one = make_plan(2, 3 * GB)
    two = share_workers(one, 2, 3 * GB)
    assert (one.workers, two.workers) == (2, 1)
    assert two.total_bytes <= 3 * GB < replace(two, workers=2).total_bytes
    assert share_workers(make_plan(2, None), 2, 24 * GB).workers == 2
    assert share_workers(make_plan(64, None), 5, 128 * GB).workers < 64


def test_the_jvm_is_fitted_to_the_plan_and_never_made_larger() -> None:
    vmargs = "-Xms64m -Xmx1g -XX:MaxDirectMemorySize=1g -XX:ActiveProcessorCount=64 -Da=b"
    unchanged = "-Xms64m -Xmx1g -XX:MaxDirectMemorySize=1g -Da=b -XX:ActiveProcessorCount=2"
    assert fit_vmargs(vmargs, make_plan(2, None)) == unchanged
    assert fit_vmargs(vmargs, Plan(2, 2, 4 << 30, 4 << 30, 64, 16)) == unchanged
    small = "-Xms64m -Xmx300m -XX:MaxDirectMemorySize=200m -Da=b -XX:ActiveProcessorCount=1"
    assert fit_vmargs(vmargs, Plan(1, 1, 300 << 20, 200 << 20, 16, 1)) == small


def test_the_documented_table_is_the_plan() -> None:
    rows = re.findall(
        r"(?m)^\| (\d+) \| ([\d.]+) GiB \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$",
        OPERATIONS.read_text(),
    )
    assert len(rows) >= 6
    for cpus, gib, *numbers in rows:
        plan = make_plan(int(cpus), int(float(gib) * (1 << 30)))
        sizes = (round(size / 1e6) for size in (plan.heap_bytes, plan.direct_bytes, plan.total_bytes))
        assert [int(number) for number in numbers] == [plan.workers, plan.small_places, plan.large_places, *sizes]
    least = re.search(r"limit below (\d+) MB", OPERATIONS.read_text())
    assert least is not None
    assert int(least[1]) == round(LEAST_BYTES / 1e6)
