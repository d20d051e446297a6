import csv
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import COMMAND, Program, environment, serving
from tests.unit.client.fake_service import FakeService, Scripted
from visionserve.cli.__main__ import main

BROKEN = Scripted(400, {"error": {"code": "corrupt_image", "message": "It is broken."}, "request_id": "x"})
# Without these two capabilities a root meets permissions as everybody does.
ORDINARY = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VISIONSERVE_URL", "VISIONSERVE_STATUS_URL", "VISIONSERVE_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def images(folder: Path) -> list[Path]:
    return sorted(folder.rglob("[0-9].jpg"))


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in images(folder)]


def rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        with path.open(newline="") as stream:
            return list(csv.DictReader(stream))
    if path.suffix == ".parquet":
        from pyarrow import parquet

        with parquet.ParquetFile(path) as file:
            results: list[dict[str, Any]] = file.read().to_pylist()
        return results
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_image_is_a_readable_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = str(images(folder)[0])
    with serving() as service:
        assert main(["predict", image, "--url", service.url, "--top-k", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == image
    assert lines[1].split() == ["rose", "75.00%", "█" * 22]
    assert lines[-1].startswith("  novelty 0.25")
    assert service.asked[0].headers["x-top-k"] == "2"


def test_an_image_may_come_from_standard_input(program: Program) -> None:
    with serving() as service:
        done = program("predict", "-", "--url", service.url, input="an image")
    assert (done.returncode, service.asked[0].body) == (0, b"an image")


def test_an_overlay_is_written_beside_the_table(folder: Path, tmp_path: Path) -> None:
    overlay = Scripted(content=b"png", headers={"content-type": "image/png"})
    with serving(Scripted(), overlay) as service:
        image = str(images(folder)[0])
        assert main(["predict", image, "--url", service.url, "--explain", str(tmp_path / "o.png")]) == 0
    assert (tmp_path / "o.png").read_bytes() == b"png"


def test_explain_writes_the_overlay(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overlay = Scripted(content=b"png", headers={"content-type": "image/png"})
    target = tmp_path / "new" / "o.png"
    with serving(Scripted(), overlay) as service:
        assert main(["explain", str(images(folder)[0]), "--url", service.url, "--out", str(target)]) == 0
    assert target.read_bytes() == b"png"
    assert "rose" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["predict"], ["explain", "--out", "never.png"]])
def test_a_refused_image_is_exit_code_one(folder: Path, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    image = str(images(folder)[0])
    with serving(BROKEN) as service:
        assert main([*command, image, "--url", service.url]) == 1
    assert capsys.readouterr().err == f"{image}: It is broken. (corrupt_image)\n"
    assert not Path("never.png").exists()


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_folder_is_a_table_with_broken_files_in_it(
    folder: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / f"rows.{suffix}"
    (folder / "dangling.png").symlink_to("nowhere")
    with serving(Scripted(), BROKEN, Scripted()) as service:
        assert main(["predict", str(folder), "--url", service.url, "--output", str(output)]) == 0
    results = {row["path"]: row for row in rows(output)}
    assert sorted(results) == ["dangling.png", *names(folder)]
    assert sorted(row["error"] or "" for row in results.values()) == [*[""] * 5, "corrupt_image", "unreadable_file"]
    assert float(results[names(folder)[0]]["probability"] or 0.75) == 0.75
    errors = capsys.readouterr().err
    assert "5 answered; 2 without an answer" in errors
    assert "1 corrupt_image" in errors


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_second_run_asks_about_new_images_only(folder: Path, tmp_path: Path, suffix: str) -> None:
    command = ["predict", str(folder), "--output", str(tmp_path / f"rows.{suffix}")]
    with serving() as service:
        assert main([*command, "--url", service.url]) == 0
        (folder / "7.jpg").write_bytes(b"new")
        asked = len(service.asked)
        assert main([*command, "--url", service.url]) == 0
        assert [request.body for request in service.asked[asked:]] == [b"new"]
    assert sorted(row["path"] for row in rows(tmp_path / f"rows.{suffix}")) == names(folder)


def test_rows_are_printed_when_no_file_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving() as service:
        assert main(["predict", str(folder), "--url", service.url, "--top-k", "2"]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(row["path"] for row in printed) == names(folder)
    assert printed[0]["label_2"] == "dahlia"


def test_overlays_of_a_folder_have_its_shape(folder: Path, tmp_path: Path) -> None:
    def content() -> Scripted:
        return Scripted(content=b"png", headers={"content-type": "image/png"})

    replies = [reply for _ in range(6) for reply in (Scripted(), content())]
    with serving(*replies) as service:
        options = ["--explain", str(tmp_path / "out"), "--concurrency", "1"]
        assert main(["predict", str(folder), "--url", service.url, *options]) == 0
    assert sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")) == [
        f"{name}.png" for name in names(folder)
    ]


def test_no_more_requests_are_under_way_than_wanted(folder: Path) -> None:
    with serving(Scripted(delay_s=0.05)) as service:
        assert main(["predict", str(folder), "--url", service.url, "--concurrency", "2"]) == 0
    assert service.most_at_once == 2


def test_a_missing_service_is_one_sentence_and_exit_code_three(folder: Path, program: Program) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
    for source in (folder, images(folder)[0]):
        done = program("predict", source, "--url", url)
        assert done.returncode == 3
        assert f"No visionserve service answers at {url}: Connection refused." in done.stderr
        assert "Traceback" not in done.stderr


def test_a_service_that_goes_away_leaves_what_was_answered(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "rows.csv"
    command = ["predict", str(folder), "--output", str(output), "--concurrency", "1"]
    with serving(Scripted(), Scripted(), Scripted(None)) as service:
        assert main([*command, "--url", service.url]) == 3
    assert len(rows(output)) == 2
    with serving() as service:
        assert main([*command, "--url", service.url]) == 0
    assert sorted(row["path"] for row in rows(output)) == names(folder)
    assert len(service.asked) == 4


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (401, 2, "VISIONSERVE_API_KEY"),
        (404, 2, "The request is rejected: "),
        (422, 2, "The request is rejected: "),
    ],
)
def test_what_every_image_would_get_ends_the_run_without_a_row(
    folder: Path, tmp_path: Path, status: int, code: int, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "rows.csv"
    refusal = Scripted(status, {"error": {"code": "x", "message": "No."}}, {"Retry-After": "3600"})
    with serving(refusal) as service:
        for source in (str(folder), str(images(folder)[0])):
            options = ["--output", str(output)] if source == str(folder) else []
            assert main(["predict", source, "--url", service.url, *options]) == code
            assert expected in capsys.readouterr().err
    assert rows(output) == []


def begun(folder: Path, output: Path, service: FakeService) -> subprocess.Popen[str]:
    """Start a slow run and wait until it has answered two images."""
    command = [*COMMAND, "predict", str(folder), "--url", service.url, "--output", str(output), "--concurrency", "1"]
    run = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not output.exists() or output.read_text().count("\n") < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return run


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_run_that_is_stopped_loses_nothing_and_the_next_goes_on(
    folder: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    output = tmp_path / "rows.csv"
    with serving(Scripted(delay_s=0.2)) as service:
        run = begun(folder, output, service)
        run.send_signal(number)
        _, errors = run.communicate(timeout=60)
    assert run.returncode == code
    assert "Traceback" not in errors
    earlier = rows(output)
    assert 2 <= len(earlier) < 6
    with output.open("a") as stream:
        stream.write('"half a li')
    with serving() as service:
        assert main(["predict", str(folder), "--url", service.url, "--output", str(output)]) == 0
    assert rows(output)[: len(earlier)] == earlier
    assert sorted(row["path"] for row in rows(output)) == names(folder)
    assert len(service.asked) == 6 - len(earlier)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_disk_that_runs_full_loses_nothing_and_the_next_run_goes_on(
    folder: Path, tmp_path: Path, suffix: str, program: Program
) -> None:
    output = tmp_path / f"rows.{suffix}"
    command = ["predict", folder, "--output", output, "--concurrency", "1"]
    with serving() as service:
        # A limit on the size of files cuts a row in two, as a full disk does.
        full = program(*command, "--url", service.url, prefix=["prlimit", "--fsize=400"])
    assert full.returncode == 2, full.stderr
    assert "cannot be written (File too large)" in full.stderr
    with serving() as service:
        assert program(*command, "--url", service.url).returncode == 0
    assert sorted(row["path"] for row in rows(output)) == names(folder)
    assert 0 < len(service.asked) < 6


def test_a_device_without_room_is_exit_code_two(folder: Path, tmp_path: Path, program: Program) -> None:
    (tmp_path / "full.csv").symlink_to("/dev/full")
    with serving() as service:
        done = program("predict", folder, "--url", service.url, "--output", tmp_path / "full.csv")
    assert done.returncode == 2
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_failure(folder: Path) -> None:
    with serving() as service:
        command = [*COMMAND, "predict", str(folder), "--url", service.url]
        run = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert run.stdout is not None
        run.stdout.close()
        assert run.stderr is not None
        errors = run.stderr.read()
        run.stderr.close()
        assert run.wait(timeout=60) == 0
    assert "Traceback" not in errors
    assert "Exception" not in errors


def test_a_file_that_may_not_be_read_is_a_row(folder: Path, tmp_path: Path, program: Program) -> None:
    images(folder)[0].chmod(0)
    (folder / "closed").mkdir(mode=0)
    with serving() as service:
        options = ["--url", service.url, "--output", tmp_path / "rows.jsonl"]
        done = program("predict", folder, *options, prefix=ORDINARY)
    assert done.returncode == 0, done.stderr
    results = {row["path"]: row for row in rows(tmp_path / "rows.jsonl")}
    assert results[names(folder)[0]]["error"] == "unreadable_file"
    assert results[names(folder)[0]]["message"] == "Permission denied"
    assert len(results) == 6
    assert "closed cannot be read and is left out: Permission denied." in done.stderr


@pytest.mark.parametrize("kind", ["image", "folder", "output"])
def test_a_place_without_permission_is_exit_code_two(folder: Path, tmp_path: Path, kind: str, program: Program) -> None:
    source, output = (images(folder)[0], []) if kind == "image" else (folder, ["--output", "x.csv"])
    if kind == "output":
        (tmp_path / "closed").mkdir(mode=0o500)
        output = ["--output", str(tmp_path / "closed" / "rows.csv")]
    else:
        source.chmod(0)
    done = program("predict", source, *output, prefix=ORDINARY, cwd=tmp_path)
    assert done.returncode == 2
    assert "Permission denied" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["predict", "missing.jpg"], "missing.jpg does not exist."),
        (["predict", "empty"], "empty contains no image files (.jpg, .jpeg"),
        (["predict", "empty", "empty"], "Name one folder"),
        (["predict", "photo.jpg", "--output", "x.csv"], "--output is for a folder"),
        (["predict", "photo.jpg", "photo.jpg", "--explain", "x.png"], "name one"),
        (["predict", "in", "--output", "x.txt"], "must end in .csv, .jsonl or .parquet"),
        (["predict", "photo.jpg", "--url", "nowhere"], "'nowhere' is not the URL of a service"),
        (["predict", "photo.jpg", "--api-key-file", "missing"], "missing cannot be read: No such file"),
        (["predict", "photo.jpg", "--model", "missing"], "nor an archive (.mar): No such file or directory. The name"),
        (["predict", "photo.jpg", "--model", "photo.jpg"], "photo.jpg is neither a bundle's folder nor an archive"),
        (["predict", "photo.jpg", "--model", "pipe"], "pipe is neither a bundle's folder nor an archive"),
        (["predict", "photo.jpg", "--model", "empty"], "cannot read the model card"),
        (["predict", "in", "--model", "empty"], "cannot read the model card"),
        (["predict", "pipe"], "pipe is neither a file nor a folder"),
        (["explain", "missing.jpg", "--out", "x.png"], "missing.jpg does not exist."),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_cannot_be_done_is_one_sentence_and_exit_code_two(
    tmp_path: Path, arguments: list[str], expected: str, program: Program
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "photo.jpg").write_bytes(b"an image")
    os.mkfifo(tmp_path / "pipe")
    done = program(*arguments, cwd=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert expected in done.stderr


@pytest.mark.parametrize(
    "options", [["--top-k", "0"], ["--top-k", "x"], ["--concurrency", "-1"], ["--timeout", "0"], ["--workers", "1.5"]]
)
def test_numbers_that_make_no_sense_are_refused(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["predict", "x.jpg", *options])
    assert ended.value.code == 2
    assert "must be" in capsys.readouterr().err


def test_the_key_comes_from_the_environment_or_a_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text("from-file\n")
    image = str(images(folder)[0])
    monkeypatch.setenv("VISIONSERVE_API_KEY", "from-environment")
    with serving() as service:
        assert main(["predict", image, "--url", service.url]) == 0
        assert main(["predict", image, "--url", service.url, "--api-key-file", str(tmp_path / "key")]) == 0
    assert [asked.headers["authorization"] for asked in service.asked] == [
        "Bearer from-environment",
        "Bearer from-file",
    ]


def test_a_name_that_is_no_text_is_written_with_escapes_and_found_again(folder: Path, tmp_path: Path) -> None:
    (folder / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"image")
    command = ["predict", str(folder), "--output", str(tmp_path / "rows.csv")]
    with serving() as service:
        assert main([*command, "--url", service.url]) == 0
        asked = len(service.asked)
        assert main([*command, "--url", service.url]) == 0
        assert len(service.asked) == asked == 7
    assert "caf\\udce9.jpg" in {row["path"] for row in rows(tmp_path / "rows.csv")}
