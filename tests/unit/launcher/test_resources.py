import os
from pathlib import Path

import pytest

from launcher import gpus, resources
from launcher.settings import SetupError

GB = 1_000_000_000
CORES = float(len(os.sched_getaffinity(0)))
LISTED = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1b2c3d4e-0000-1111-2222-333344445555)
  MIG 1g.10gb     Device  0: (UUID: MIG-aaaa0000-0000-0000-0000-000000000000)
  MIG 1g.10gb     Device  1: (UUID: MIG-bbbb0000-0000-0000-0000-000000000000)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-9f8e7d6c-0000-1111-2222-333344445555)
"""


def cgroups(folder: Path, membership: str, **files: str) -> tuple[Path, Path]:
    """Write a tree of cgroups; a file's name has __ for / and _dot_ for a dot."""
    root = folder / "cgroup"
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    (folder / "membership").write_text(membership)
    return root, folder / "membership"


def test_version_2_limits_are_read_from_the_own_group(tmp_path: Path) -> None:
    tree = cgroups(tmp_path, "0::/\n", cpu_dot_max="50000 100000", memory_dot_max="2000000000")
    assert (resources.cpus(*tree), resources.memory_bytes(*tree)) == (0.5, 2 * GB)


def test_the_smallest_limit_on_the_way_up_holds(tmp_path: Path) -> None:
    tree = cgroups(
        tmp_path,
        "0::/a/b\n",
        a__cpu_dot_max="20000 100000",
        a__b__cpu_dot_max="max 100000",
        a__memory_dot_max="max",
        a__b__memory_dot_max="1000000000",
    )
    assert (resources.cpus(*tree), resources.memory_bytes(*tree)) == (0.2, GB)


def test_version_1_limits_are_read_by_controller(tmp_path: Path) -> None:
    tree = cgroups(
        tmp_path,
        "9:name=systemd:/x\n4:memory:/x\n1:cpu,cpuacct:/x\n0::/\n",
        cpu__x__cpu_dot_cfs_quota_us="50000",
        cpu__x__cpu_dot_cfs_period_us="100000",
        memory__x__memory_dot_limit_in_bytes="1000000000",
    )
    assert (resources.cpus(*tree), resources.memory_bytes(*tree)) == (0.5, GB)


def test_a_path_of_the_host_that_a_container_cannot_see_means_its_own_root(tmp_path: Path) -> None:
    tree = cgroups(
        tmp_path,
        "1:cpu:/docker/0123\n",
        cpu__cpu_dot_cfs_quota_us="50000",
        cpu__cpu_dot_cfs_period_us="100000",
    )
    assert resources.cpus(*tree) == 0.5


def test_no_limit_is_the_machines_own(tmp_path: Path) -> None:
    unlimited = cgroups(
        tmp_path,
        "1:cpu:/\n4:memory:/\n0::/\n",
        cpu__cpu_dot_cfs_quota_us="-1",
        cpu__cpu_dot_cfs_period_us="100000",
        memory__memory_dot_limit_in_bytes="9223372036854771712",
        cpu_dot_max="max 100000",
    )
    assert (resources.cpus(*unlimited), resources.memory_bytes(*unlimited)) == (CORES, None)
    nowhere = tmp_path / "none"
    assert (resources.cpus(nowhere, nowhere), resources.memory_bytes(nowhere, nowhere)) == (CORES, None)


FILES_V1 = {
    "memory__x__memory_dot_limit_in_bytes": "4000",
    "memory__x__memory_dot_usage_in_bytes": "3900",
    "memory__x__memory_dot_stat": "inactive_file 1\ntotal_inactive_file 3000",
}
FILES_V2 = {
    "x__memory_dot_max": "4000",
    "x__memory_dot_current": "3900",
    "x__memory_dot_stat": "anon 5\ninactive_file 3000",
}


@pytest.mark.parametrize(("membership", "files"), [("4:memory:/x\n", FILES_V1), ("0::/x/inner\n", FILES_V2)])
def test_page_cache_that_can_be_freed_counts_as_available(
    tmp_path: Path, membership: str, files: dict[str, str]
) -> None:
    assert resources.available_memory_bytes(*cgroups(tmp_path, membership, **files)) == 3100


def test_available_memory_is_the_machines_without_a_limit(tmp_path: Path) -> None:
    unlimited = {"memory__memory_dot_limit_in_bytes": "9223372036854771712", "memory__memory_dot_usage_in_bytes": "9"}
    available = resources.available_memory_bytes(*cgroups(tmp_path, "4:memory:/\n", **unlimited))
    assert available > 100_000_000


def test_this_machines_own_limits_can_be_read() -> None:
    assert 0 < resources.cpus() <= CORES


@pytest.mark.parametrize("visible", [None, "", "0", "0,1", "-1"])
def test_gpus_by_number_are_left_as_they_are(visible: str | None) -> None:
    environment = {"A": "b"} | ({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})
    assert gpus.for_torchserve(environment, "") == environment


def test_gpus_by_uuid_are_counted_for_torchserve_and_named_for_the_workers() -> None:
    names = "GPU-9f8e7d6c-0000-1111-2222-333344445555,GPU-1b2c"
    environment = gpus.for_torchserve({"A": "b", "CUDA_VISIBLE_DEVICES": names}, LISTED)
    assert environment == {"A": "b", "VISIONSERVE_CUDA_VISIBLE_DEVICES": names, "TS_NUMBER_OF_GPU": "2"}


def test_mig_instances_are_one_gpu_as_cuda_sees_one_only() -> None:
    names = "MIG-aaaa0000-0000-0000-0000-000000000000,MIG-bbbb0000-0000-0000-0000-000000000000"
    environment = gpus.for_torchserve({"CUDA_VISIBLE_DEVICES": names}, LISTED)
    assert environment == {"VISIONSERVE_CUDA_VISIBLE_DEVICES": names, "TS_NUMBER_OF_GPU": "1"}


def test_a_gpu_that_is_not_there_is_named() -> None:
    with pytest.raises(SetupError, match="GPU-0000, which `nvidia-smi -L` does not list"):
        gpus.for_torchserve({"CUDA_VISIBLE_DEVICES": "GPU-0000"}, LISTED)


@pytest.mark.parametrize(
    ("visible", "count"), [(None, 2), ("", 0), ("0", 1), ("0,1", 2), ("-1", 0), ("GPU-9f8e,GPU-1b2c", 2)]
)
def test_gpus_are_counted_as_cuda_would_see_them(visible: str | None, count: int) -> None:
    assert gpus.count(LISTED, visible) == count
    assert gpus.count("", visible) == 0


def test_a_driver_that_fails_lists_nothing(tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho GPU 0: broken\nexit 9\n")
    program.chmod(0o755)
    assert gpus.listing({"PATH": str(tmp_path)}) == ""
    program.write_text("#!/bin/sh\necho GPU 0: fine\n")
    assert gpus.listing({"PATH": str(tmp_path)}) == "GPU 0: fine\n"
    assert gpus.listing({"PATH": ""}) == ""
