"""A folder whose service fails for some images, whose tables are interrupted, whose files are odd."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import COMMAND, Program, environment, serving
from tests.unit.client.fake_service import FakeService, Scripted
from visionserve import images
from visionserve.cli.__main__ import main
from visionserve.cli.folder import SAMPLE

NOW = {"Retry-After": "0"}
BUSY = Scripted(503, {"error": {"code": "unavailable", "message": "No worker."}, "request_id": "x"}, NOW)


def rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        with path.open(newline="") as stream:
            return list(csv.DictReader(stream))
    if path.suffix == ".parquet":
        from pyarrow import parquet

        with parquet.ParquetFile(path) as file:
            table: list[dict[str, Any]] = file.read().to_pylist()
        return table
    return [json.loads(line) for line in path.read_text().splitlines()]


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("[0-9]*.jpg"))


def fail_for(service: FakeService, images: Collection[bytes], reply: Scripted) -> None:
    """Let a service give the same reply to these images every time."""
    answer = service.next_reply

    def next_reply(asked: Any) -> Scripted:
        usual = answer(asked)
        return reply if asked.body in images else usual

    service.next_reply = next_reply  # type: ignore[method-assign]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_rows_of_another_folder_or_model_are_not_taken_for_this_one(
    folder: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / f"rows.{suffix}"
    other = tmp_path / "other"
    other.mkdir()
    (other / names(folder)[0]).parent.mkdir(parents=True, exist_ok=True)
    (other / names(folder)[0]).write_bytes(b"another image of the same name")
    with serving() as service:
        command = ["--output", str(output), "--url", service.url]
        assert main(["predict", str(folder), *command]) == 0
        before, asked = rows(output), len(service.asked)
        assert main(["predict", str(other), *command]) == 2
        assert f"has the rows of {folder}, not of {other}: choose another file." in capsys.readouterr().err
        assert main(["predict", str(folder), *command, "--name", "pets"]) == 2
        assert "has rows of flowers, not of pets: choose another file." in capsys.readouterr().err
        assert rows(output) == before
        assert not [request for request in service.asked[asked:] if request.body]
        moved = folder.rename(tmp_path / "moved")
        assert main(["predict", str(moved), *command]) == 0
    assert "6 had a row already" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_table_without_a_row_is_of_no_folder(
    folder: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / f"rows.{suffix}"
    with serving(Scripted(None)) as service:
        assert main(["predict", str(folder / "row-0"), "--output", str(output), "--url", service.url]) == 3
    with serving() as service:
        assert main(["predict", str(folder), "--output", str(output), "--url", service.url]) == 0
        assert "6 answered; rows in" in capsys.readouterr().err
        assert main(["predict", str(folder / "row-0"), "--output", str(output), "--url", service.url]) == 2
    assert f"has the rows of {folder}, not of" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_rows_of_images_that_are_gone_are_counted_apart(
    folder: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["predict", str(folder), "--labels", "folder", "--output", str(tmp_path / f"rows.{suffix}")]
    (folder / "row-0").rename(folder / "Rose")
    with serving() as service:
        assert main([*command, "--url", service.url]) == 0
        (folder / "Rose" / "0.jpg").unlink()
        capsys.readouterr()
        assert main([*command, "--url", service.url]) == 0
    said = capsys.readouterr().err
    assert "0 answered; 5 had a row already; rows of images that are no longer in the folder: 1; rows in" in said
    assert "Accuracy 40.0%: 2 of 5 answers" in said


WORKER_DIED = Scripted(500, {"code": 500, "type": "InternalServerException", "message": "Worker died."})


@pytest.mark.parametrize(
    ("suffix", "reply"),
    [("csv", BUSY), ("jsonl", WORKER_DIED), ("parquet", BUSY), ("csv", Scripted(delay_s=5))],
    ids=["busy-csv", "worker-died-jsonl", "busy-parquet", "hangs-csv"],
)
def test_an_image_that_always_fails_has_a_row_and_the_run_goes_on(
    folder: Path, tmp_path: Path, suffix: str, reply: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    image = folder / "row-0" / "0.jpg"
    output = tmp_path / f"rows.{suffix}"
    command = ["predict", str(folder), "--output", str(output), "--timeout", "1", "--concurrency", "1"]
    with serving() as service:
        fail_for(service, [image.read_bytes()], reply)
        assert main([*command, "--url", service.url]) == 0
    assert "5 answered; 1 without an answer" in (report := capsys.readouterr().err)
    assert "The same command tries the 1 again" in report
    errors = {row["path"]: row["error"] for row in rows(output) if row["error"]}
    assert errors == {"row-0/0.jpg": "deadline_exceeded" if reply.delay_s else "unavailable"}
    (folder / "7.jpg").write_bytes(b"new")
    with serving() as service:
        assert main([*command, "--url", service.url]) == 0
    assert [asked.body for asked in service.asked] == [b"new", image.read_bytes()], "the failed one comes last"
    assert sorted(row["path"] for row in rows(output)) == names(folder)
    assert not any(row["error"] for row in rows(output))


def test_a_service_that_is_too_busy_for_all_is_exit_code_three(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(10, 30):
        (folder / f"{index}.jpg").write_bytes(b"image")
    output = tmp_path / "rows.csv"
    with serving(BUSY) as service:
        command = ["predict", str(folder), "--url", service.url, "--output", str(output), "--concurrency", "1"]
        assert main([*command, "--timeout", "1"]) == 3
    assert "too busy or not ready" in capsys.readouterr().err
    assert len(rows(output)) == 8, "it gives up before it has tried every image"
    with serving() as service:
        assert main(["predict", str(folder), "--url", service.url, "--output", str(output)]) == 0
    assert sorted(row["path"] for row in rows(output)) == names(folder)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("others", [0, 6])
def test_images_that_always_fail_however_many_have_rows_and_the_run_goes_on(
    folder: Path, tmp_path: Path, suffix: str, others: int
) -> None:
    failing = [f"busy {number}".encode() for number in range(19)]
    if not others:
        for path in folder.rglob("[0-9]*.jpg"):
            path.unlink()
    for number, content in enumerate(failing):
        (folder / f"{number}-busy.jpg").write_bytes(content)
    output = tmp_path / f"rows.{suffix}"
    command = ["predict", str(folder), "--output", str(output), "--timeout", "1", "--concurrency", "1"]
    for _run in range(2):
        with serving() as service:
            fail_for(service, failing, BUSY)
            assert main([*command, "--url", service.url]) == 0
        assert {asked.body for asked in service.asked} >= set(failing)
        errors = Counter(row["error"] or "" for row in rows(output))
        assert errors == {"unavailable": len(failing)} | ({"": others} if others else {})
    assert sorted(row["path"] for row in rows(output)) == names(folder)


@pytest.mark.parametrize("end", ["busy", "gone"])
def test_a_parquet_table_is_completed_when_the_service_ends_the_run(folder: Path, tmp_path: Path, end: str) -> None:
    output = tmp_path / "rows.parquet"
    command = ["predict", str(folder), "--output", str(output), "--timeout", "1", "--concurrency", "1"]
    with serving(*[Scripted()] * 2, BUSY if end == "busy" else Scripted(None)) as service:
        for number in range(10, 20):
            (folder / f"{number}.jpg").write_bytes(b"image")
        assert main([*command, "--url", service.url]) == 3
    assert [row["error"] for row in rows(output)] == [None] * 2 + ["unavailable"] * (8 if end == "busy" else 0)
    assert not list(tmp_path.glob("*.jsonl"))
    with serving() as service:
        assert main([*command, "--url", service.url]) == 0
    assert sorted(row["path"] for row in rows(output)) == names(folder)


def test_the_sample_image_is_one() -> None:
    assert images.decode(SAMPLE).shape == (16, 16, 3)


@pytest.mark.parametrize("at", ["before", "after"])
def test_a_parquet_run_that_is_killed_while_its_table_is_written_completes_it(
    folder: Path, tmp_path: Path, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from visionserve.cli.parquet import ParquetTable

    output = tmp_path / "rows.parquet"
    command = ["predict", str(folder), "--output", str(output)]
    complete = ParquetTable.complete

    def killed(table: ParquetTable) -> None:
        if at == "after":  # the table is replaced, its waiting rows are still there
            waiting = table._waiting.path.read_bytes()
            complete(table)
            table._waiting.path.write_bytes(waiting)
        raise KeyboardInterrupt

    with serving() as service:
        with monkeypatch.context() as patched:
            patched.setattr(ParquetTable, "complete", killed)
            assert main([*command, "--url", service.url]) == 130
        assert output.exists() == (at == "after")
        asked = len(service.asked)
        assert main([*command, "--url", service.url]) == 0
        assert len(service.asked) == asked
    assert sorted(row["path"] for row in rows(output)) == names(folder)
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"rows.parquet", ".rows.parquet.folder"}


@pytest.mark.parametrize("inside", [".", "overlays", "row-0/overlays"])
def test_overlays_inside_the_folder_are_refused(folder: Path, inside: str, capsys: pytest.CaptureFixture[str]) -> None:
    with serving() as service:
        assert main(["predict", str(folder), "--url", service.url, "--explain", str(folder / inside)]) == 2
    assert "choose a folder outside" in capsys.readouterr().err
    assert service.asked == []


def test_an_output_that_is_the_image_itself_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = folder / "row-0" / "0.jpg"
    before = image.read_bytes()
    for command in (["predict", str(image), "--explain", str(image)], ["explain", str(image), "--out", str(image)]):
        with serving() as service:
            assert main([*command, "--url", service.url]) == 2
        assert "would be overwritten" in capsys.readouterr().err
    assert image.read_bytes() == before


def odd_files(folder: Path) -> None:
    os.mkfifo(folder / "pipe.jpg")
    (folder / "device.jpg").symlink_to("/dev/zero")
    (folder / "folder.jpg").symlink_to("row-0")


def test_what_is_not_a_regular_file_is_a_row_with_the_reason(folder: Path, tmp_path: Path, program: Program) -> None:
    odd_files(folder)
    with serving() as service:
        done = program("predict", folder, "--url", service.url, "--output", tmp_path / "rows.jsonl")
    assert done.returncode == 0, done.stderr
    errors = {row["path"]: row["message"] for row in rows(tmp_path / "rows.jsonl") if row["error"]}
    assert errors == {**dict.fromkeys(["pipe.jpg", "device.jpg"], "Not a regular file"), "folder.jpg": "Is a directory"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_at_once_while_the_service_hangs(folder: Path, number: signal.Signals) -> None:
    with serving(Scripted(delay_s=20)) as service:
        command = [*COMMAND, "predict", str(folder), "--url", service.url]
        run = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True)
        while not service.asked:
            assert run.poll() is None
            time.sleep(0.02)
        started = time.monotonic()
        run.send_signal(number)
        _, errors = run.communicate(timeout=60)
        assert time.monotonic() - started < 5
    assert (run.returncode, "Traceback" in errors) == (130, False)
    assert "Stopped" in errors


def test_a_second_ctrl_c_kills_a_run_that_cannot_end(folder: Path) -> None:
    """Its last sentence goes to a pipe that is full and that nobody reads."""
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writable, bytes(1 << 16))
    os.set_blocking(writable, True)
    try:
        with serving(Scripted(delay_s=20)) as service:
            command = [*COMMAND, "predict", str(folder), "--url", service.url]
            run = subprocess.Popen(command, env=environment(), stderr=writable)
            while not service.asked:
                assert run.poll() is None
                time.sleep(0.02)
            run.send_signal(signal.SIGINT)
            with pytest.raises(subprocess.TimeoutExpired):
                run.wait(timeout=2)
            run.send_signal(signal.SIGINT)
            assert run.wait(timeout=10) == -signal.SIGINT
    finally:
        os.close(readable)
        os.close(writable)


def test_accuracy_by_the_folders_names_counts_earlier_runs_too(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "row-0").rename(folder / "Rose")  # the fake service always answers "rose"
    (folder / "none.jpg").write_bytes(b"in no folder of its own")
    for suffix in ("csv", "jsonl", "parquet"):
        command = ["predict", str(folder), "--labels", "folder", "--output", str(tmp_path / f"rows.{suffix}")]
        for _ in range(2):
            with serving() as service:
                assert main([*command, "--url", service.url]) == 0
            assert "Accuracy 50.0%: 3 of 6 answers equal the folder's name." in capsys.readouterr().err


def test_labels_without_folders_or_for_one_image_say_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving() as service:
        assert main(["predict", str(folder / "row-0"), "--labels", "folder", "--url", service.url]) == 0
        assert "No accuracy" in capsys.readouterr().err
        assert main(["predict", str(folder / "row-0" / "0.jpg"), "--labels", "folder", "--url", service.url]) == 2
        assert "--labels is for a folder" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_name_with_line_ends_and_escapes_is_found_again(folder: Path, tmp_path: Path, suffix: str) -> None:
    (folder / "a\rb\nc\x1b[31m,'\".jpg").write_bytes(b"odd")
    command = ["predict", str(folder), "--output", str(tmp_path / f"rows.{suffix}")]
    with serving() as service:
        for _ in range(2):
            assert main([*command, "--url", service.url]) == 0
    assert len(service.asked) == 7
