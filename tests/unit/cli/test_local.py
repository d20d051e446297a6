import json
import os
import shutil
import signal
import subprocess
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import COMMAND, Program, environment
from tests.unit.conftest import LABELS, TinyBundle
from visionserve import batch
from visionserve.classifier import Classifier
from visionserve.cli import local
from visionserve.cli.__main__ import main
from visionserve.request_parsing import RawRequest


def rows(path: Path) -> dict[str, dict[str, Any]]:
    results = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({row["path"] for row in results}) == len(results)
    return {row["path"]: row for row in results}


def test_a_bundle_answers_a_folder_as_a_server_would(tiny: TinyBundle, folder: Path, tmp_path: Path) -> None:
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    (folder / "text.png").write_bytes(b"no image")
    (folder / "json.jpg").write_bytes(json.dumps({"instances": [{"b64": "aGVsbG8="}]}).encode())
    output = tmp_path / "rows.jsonl"
    options = ["--model", str(tiny.directory), "--output", str(output), "--workers", "2", "--top-k", "2"]
    assert main(["predict", str(folder), *options]) == 0
    results = rows(output)
    assert len(results) == 9
    assert results["broken.jpg"]["error"] == "corrupt_image"
    assert results["text.png"]["error"] == "unsupported_image"
    assert results["json.jpg"]["error"] == "unsupported_image"
    classifier = Classifier.load(tiny.directory)
    for path in folder.rglob("[0-9].jpg"):
        request = RawRequest("", {"body": path.read_bytes()}, {"x-top-k": "2"})
        served = json.loads(batch.answer(classifier, [request], 1).replies[0].content.body)
        row = results[path.relative_to(folder).as_posix()]
        assert (row["label"], row["probability"]) == tuple(
            served["predictions"][0][key] for key in ("label", "probability")
        )
        assert (row["label_2"], row["novelty"]) == (served["predictions"][1]["label"], served["novelty"])


def test_an_archive_answers_as_its_bundle_does(
    tiny: TinyBundle, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with zipfile.ZipFile(tmp_path / "shapes.mar", "w") as archive:
        for path in tiny.directory.iterdir():
            archive.write(path, path.name)
    image = str(next(folder.rglob("0.jpg")))
    printed = []
    for model in (tiny.directory, tmp_path / "shapes.mar"):
        assert main(["predict", image, "--model", str(model), "--top-k", "3"]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert all(label in printed[0] for label in LABELS)


def test_overlays_are_png_files(tiny: TinyBundle, folder: Path, tmp_path: Path) -> None:
    options = ["--model", str(tiny.directory), "--top-k", "1", "--workers", "1", "--explain", str(tmp_path / "out")]
    assert main(["predict", str(folder), *options]) == 0
    overlays = list((tmp_path / "out").rglob("*.jpg.png"))
    assert len(overlays) == 6
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in overlays)


def test_more_labels_than_the_model_has_end_the_run(
    tiny: TinyBundle, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(folder), "--model", str(tiny.directory), "--top-k", "4", "--workers", "1"]) == 2
    assert "top_k must be a whole number from 1 to 3" in capsys.readouterr().err


def test_a_bundle_that_lost_a_file_ends_the_run(
    tiny: TinyBundle, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny.directory, tmp_path / "bundle")
    (tmp_path / "bundle" / "model.int8.onnx").unlink()
    assert main(["predict", str(folder), "--model", str(tmp_path / "bundle"), "--workers", "1"]) == 2
    assert "The model cannot be used here" in capsys.readouterr().err


def children(pid: int) -> list[int]:
    pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in pids]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_leaves_no_workers_and_the_next_goes_on(
    tiny: TinyBundle, folder: Path, tmp_path: Path, number: signal.Signals, program: Program
) -> None:
    image = next(folder.rglob("0.jpg")).read_bytes()
    for index in range(3000):
        (folder / f"more-{index}.jpg").write_bytes(image)
    output = tmp_path / "rows.jsonl"
    options = ["predict", str(folder), "--model", str(tiny.directory), "--output", str(output), "--top-k", "1"]
    run = subprocess.Popen([*COMMAND, *options, "--workers", "1"], env=environment(), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not output.exists() or output.stat().st_size < 1000:
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    workers = children(run.pid)
    run.send_signal(number)
    assert run.wait(timeout=60) == (130 if number == signal.SIGINT else -number)
    earlier = output.read_text().count("\n")
    assert earlier < 3006
    while any(Path(f"/proc/{worker}/stat").exists() and not _is_dead(worker) for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for path in folder.glob("more-*"):
        if path.name not in output.read_text():
            path.unlink()
    done = program(*options, "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert len(rows(output)) >= earlier


def _is_dead(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def test_a_worker_that_is_killed_is_one_sentence(tiny: TinyBundle, folder: Path, tmp_path: Path) -> None:
    image = next(folder.rglob("0.jpg")).read_bytes()
    for index in range(3000):
        (folder / f"more-{index}.jpg").write_bytes(image)
    output = tmp_path / "rows.jsonl"
    options = ["predict", str(folder), "--model", str(tiny.directory), "--output", str(output), "--top-k", "1"]
    run = subprocess.Popen([*COMMAND, *options, "--workers", "1"], env=environment(), stderr=subprocess.PIPE, text=True)
    while not output.exists() or output.stat().st_size < 1000:
        assert run.poll() is None
        time.sleep(0.01)
    for worker in children(run.pid):
        # The resource tracker of multiprocessing is a child too.
        if b"spawn_main" in Path(f"/proc/{worker}/cmdline").read_bytes():
            os.kill(worker, signal.SIGKILL)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 2
    assert "A worker process was killed" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("content", "expected"),
    [("100000 100000", 1), ("50000 100000", 1), ("140000 100000", 2), ("max 100000", None), ("", None), (None, None)],
)
def test_cores_are_bounded_by_the_quota_of_the_container(
    tmp_path: Path, content: str | None, expected: int | None
) -> None:
    if content is not None:
        (tmp_path / "cpu.max").write_text(content)
    assert local.cores(tmp_path) == (expected or local.cores(tmp_path / "none"))


def test_a_batch_of_unreadable_files_is_rows_with_reasons(tiny: TinyBundle, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for index in range(9):
        (folder / f"{index}.jpg").symlink_to("nowhere")
    output = tmp_path / "rows.jsonl"
    assert (
        main(["predict", str(folder), "--model", str(tiny.directory), "--output", str(output), "--workers", "1"]) == 0
    )
    assert {row["error"] for row in rows(output).values()} == {"unreadable_file"}
    assert len(rows(output)) == 9
