"""`visionserve bulk` as far as it needs no cluster; tests/unit/cli/test_bulk_cluster.py runs it on one."""

import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import Program
from tests.unit.conftest import LABELS, TinyBundle

pytest.importorskip("pyarrow", reason="pyarrow is not installed: make .venv/.serve")
from pyarrow import dataset

from visionserve.cli.bulk import parts
from visionserve.cli.bulk.storage import Storage
from visionserve.cli.bulk.worker import Classify
from visionserve.cli.exit_codes import Stop
from visionserve.cli.resumable_table import columns

NAMES = columns(2)
IDENTITY = parts.Identity("in", "shapes 1.0", "0" * 64, NAMES)


def files(bundle: TinyBundle) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bundle.directory.iterdir() if path.is_file()}


def classified(bundle: TinyBundle, source: object, output: Path, names: list[str]) -> list[dict[str, Any]]:
    worker = Classify(lambda: files(bundle), str(source), str(output), 2)
    for block in parts.blocks(names, 4, "run"):
        worker(block)
    rows: list[dict[str, Any]] = dataset.dataset(output).to_table().to_pylist()
    return rows


def test_a_worker_writes_a_row_for_every_image_also_for_those_without_an_answer(
    tiny: TinyBundle, folder: Path, tmp_path: Path
) -> None:
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    os.mkfifo(folder / "pipe.png")
    (folder / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"")
    names = [*Storage.open(str(folder)).images(print), "gone.jpg"]
    rows = {row["path"]: row for row in classified(tiny, folder, tmp_path / "out", names)}
    assert len(rows) == 10
    assert {name: rows[name]["error"] for name in ("broken.jpg", "pipe.png", "gone.jpg", "caf\\udce9.jpg")} == {
        "broken.jpg": "corrupt_image",
        "pipe.png": "unreadable_file",
        "gone.jpg": "unreadable_file",
        "caf\\udce9.jpg": "empty_body",
    }
    assert rows["row-0/0.jpg"]["label"] in LABELS
    assert rows["row-0/0.jpg"]["model"] == "shapes"
    assert len(list((tmp_path / "out").glob("part-run-*.parquet"))) == 3
    assert parts.images(Storage.open(str(tmp_path / "out"))) == set(rows)


def test_a_task_that_is_repeated_replaces_its_part(tiny: TinyBundle, folder: Path, tmp_path: Path) -> None:
    names = list(Storage.open(str(folder)).images(print))
    classified(tiny, folder, tmp_path / "out", names)
    assert len(classified(tiny, folder, tmp_path / "out", names)) == 6


def test_an_address_that_only_fsspec_knows_is_read(tiny: TinyBundle, folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for path in folder.rglob("*"):
            archive.write(path, path.relative_to(folder).as_posix())
    address = f"zip://::file://{tmp_path}/images.zip"
    names = sorted(Storage.open(address).images(print))
    assert names == sorted(Storage.open(str(folder)).images(print))
    assert all(row["error"] is None for row in classified(tiny, address, tmp_path / "out", names))


@pytest.mark.parametrize("address", ["nonsense://bucket/x", "https//x://y"])
def test_an_address_that_nothing_opens_is_one_sentence(address: str) -> None:
    with pytest.raises(Stop, match=address):
        Storage.open(address)


def test_an_output_takes_rows_of_one_source_and_one_model(tmp_path: Path) -> None:
    output = Storage.open(str(tmp_path / "out"))
    parts.claim(output, "out", IDENTITY)
    parts.claim(output, "out", IDENTITY)
    other = parts.Identity("elsewhere", "shapes 1.1", "1" * 64, columns(3))
    expected = r"rows of another source \(in\), another model \(shapes 1.0\), other weights, other columns"
    with pytest.raises(Stop, match=expected):
        parts.claim(output, "out", other)


def test_an_output_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.parquet").write_bytes(b"")
    with pytest.raises(Stop, match="holds other files"):
        parts.claim(Storage.open(str(tmp_path)), "out", IDENTITY)


def test_without_ray_the_command_says_what_installs_it(tiny: TinyBundle, folder: Path, program: Program) -> None:
    try:
        import ray  # noqa: F401
    except ModuleNotFoundError:
        done = program("bulk", folder, "--model", tiny.directory, "--output", folder / "out")
        assert done.returncode == 2
        assert "the package ray is not installed: pip install 'visionserve[bulk]'" in done.stderr
        assert "make" not in done.stderr, "Ray is in no set of make"
    else:
        pytest.skip("Ray is installed: run this in an environment without it")
