"""`visionserve bulk` on a cluster of two nodes and in a bucket.

Ray and moto are in no lock file: a cluster has its own Ray, and moto needs another python-dateutil. To run this:

    python -m venv --system-site-packages bulk      # of .venv's Python, or any that has requirements/dev.txt
    bulk/bin/pip install 'ray[data]' 'moto[s3]' flask flask-cors
    bulk/bin/python -m pytest tests/unit/cli/test_bulk_cluster.py
"""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.cli.conftest import COMMAND, environment
from tests.unit.conftest import TinyBundle

_HOW = "how to run this is in tests/unit/cli/test_bulk_cluster.py"
pytest.importorskip("ray", reason=f"Ray is not installed: {_HOW}")
dataset, fs = pytest.importorskip("pyarrow.dataset"), pytest.importorskip("pyarrow.fs")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# Two nodes of a core each: raylets, object stores and workers of their own, as on two machines.
NODES = """
from ray.cluster_utils import Cluster
node = {"num_cpus": 1, "object_store_memory": 200 * 2**20}
cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
cluster.add_node(**node)
print("address", cluster.address, flush=True)
input()
cluster.shutdown()
"""
RAY = {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    nodes = subprocess.Popen(
        [sys.executable, "-c", NODES], env=environment(**RAY), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert nodes.stdin is not None
    assert nodes.stdout is not None
    address = next(line.split()[1] for line in nodes.stdout if line.startswith("address"))
    with nodes.stdin, nodes.stdout:
        yield address
        nodes.stdin.write("\n")
    nodes.wait(60)


def bulk(cluster: str, *arguments: object, **more: str) -> subprocess.Popen[str]:
    command = [*COMMAND, "bulk", *map(str, arguments), "--cluster", cluster, "--part-rows", "20", "--top-k", "2"]
    return subprocess.Popen(
        command, env=environment(**RAY, **more), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def finished(run: subprocess.Popen[str]) -> str:
    _, errors = run.communicate(timeout=600)
    assert run.returncode == 0, errors
    return errors


@pytest.fixture
def many(folder: Path) -> Path:
    """400 images, two of them broken."""
    image = next(folder.rglob("0.jpg")).read_bytes()
    for number in range(392):
        (folder / f"more-{number:03}.jpg").write_bytes(image)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    (folder / "empty.png").write_bytes(b"")
    return folder


def test_a_run_that_was_stopped_is_continued_on_both_nodes(
    cluster: str, tiny: TinyBundle, many: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    stopped = bulk(cluster, many, "--model", tiny.directory, "--output", output)
    deadline = time.monotonic() + 300
    while len(list(output.glob("*.parquet"))) < 2:
        assert stopped.poll() is None, stopped.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    stopped.send_signal(signal.SIGTERM)
    _, errors = stopped.communicate(timeout=120)
    assert stopped.returncode == 130, errors
    assert "finished rows are kept" in errors
    before = {path.name: path.stat().st_mtime_ns for path in output.glob("*.parquet")}
    assert len(before) < 20
    errors = finished(bulk(cluster, many, "--model", tiny.directory, "--output", output))
    assert re.search(r"(\d+) had a row already", errors), errors
    assert before == {name: (output / name).stat().st_mtime_ns for name in before}, "a finished part is written again"
    rows = dataset.dataset(output).to_table().to_pylist()
    assert len(rows) == len({row["path"] for row in rows}) == 400
    assert {row["path"]: row["error"] for row in rows if row["error"]} == {
        "broken.jpg": "corrupt_image",
        "empty.png": "empty_body",
    }
    errors = finished(bulk(cluster, many, "--model", tiny.directory, "--output", output))
    assert "0 answered; 400 had a row already" in errors


def test_a_bucket_is_read_and_written(cluster: str, tiny: TinyBundle, folder: Path) -> None:
    moto = pytest.importorskip("moto.server", reason=f"moto is not installed: {_HOW}")
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        where = f"scheme=http&endpoint_override=127.0.0.1:{port}&region=us-east-1&allow_bucket_creation=true"
        # An address with its key is what Arrow's documentation calls a URI; on a real cluster the key is the machine's.
        bucket = f"s3://key:secret@images/in?{where}"
        system, root = fs.FileSystem.from_uri(bucket)
        system.create_dir(root)
        fs.copy_files(str(folder), root, destination_filesystem=system)
        arguments = (bucket, "--model", tiny.directory, "--output", f"s3://key:secret@images/out?{where}")
        assert "6 answered; rows in" in finished(bulk(cluster, *arguments))
        rows = dataset.dataset("images/out", filesystem=system).to_table().to_pylist()
        assert {row["path"] for row in rows} == {f"row-{number % 2}/{number}.jpg" for number in range(6)}
        assert "0 answered; 6 had a row already" in finished(bulk(cluster, *arguments))
    finally:
        server.stop()


def test_one_machine_needs_no_cluster(tiny: TinyBundle, folder: Path, tmp_path: Path) -> None:
    run = bulk("local", folder, "--model", tiny.directory, "--output", tmp_path / "out")
    assert "6 answered" in finished(run)
    assert list((tmp_path / "out").glob("*.parquet"))
