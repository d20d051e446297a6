"""The command where streams are closed, disks are full, names are odd and variables are not set."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.cli.conftest import COMMAND, Program, environment, serving
from tests.unit.client.fake_service import ANSWER, MODEL, Scripted
from visionserve.cli.__main__ import main
from visionserve.files import LARGEST_IMAGE

FULL = "Standard output cannot be written: No space left on device.\n"
HOSTILE = "rose\x1b[31m\r"


def without(*streams: int) -> Callable[[], None]:
    """Return what closes some of a new process's streams before its program starts."""

    def close() -> None:
        for number in streams:
            os.close(number)

    return close


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_streams_are_no_error(folder: Path, tmp_path: Path, closed: tuple[int, ...]) -> None:
    table = tmp_path / "out.csv"
    with serving() as service:
        command = [*COMMAND, "predict", str(folder), "--url", service.url, "--output", str(table)]
        done = subprocess.run(
            command, env=environment(), check=False, capture_output=True, text=True, preexec_fn=without(*closed)
        )
    assert done.returncode == 0, done.stderr
    assert len(table.read_text().splitlines()) == 7
    assert done.stdout == ""
    assert ("6 answered" in done.stderr) == (2 not in closed)


def test_what_goes_to_a_closed_error_stream_does_not_reach_the_output(tmp_path: Path) -> None:
    command = [*COMMAND, "predict", str(tmp_path / "nothing.jpg")]
    done = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, check=False, preexec_fn=without(2))
    assert (done.returncode, done.stdout) == (2, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full, a device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_cannot_be_written_is_a_sentence(folder: Path, tmp_path: Path, unbuffered: str) -> None:
    image = str(folder / "row-0" / "0.jpg")
    png = Scripted(content=b"png", headers={"content-type": "image/png"})
    for command in (["predict", image], ["explain", image, "--out", str(tmp_path / "o.png")], ["models"]):
        listing = Scripted(content={"models": [MODEL]})
        replies = [listing] if command == ["models"] else [Scripted(), png]
        with serving(*replies) as service, Path("/dev/full").open("wb") as full:
            address = [service.url] if command == ["models"] else ["--url", service.url]
            done = subprocess.run(
                [*COMMAND, *command, *address],
                stdout=full, stderr=subprocess.PIPE, text=True, check=False,
                env=environment(PYTHONUNBUFFERED=unbuffered),
            )  # fmt: skip
        assert (done.returncode, done.stderr) == (2, FULL), command


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (b"", "Standard input is empty.\n"),
        (b"x" * (LARGEST_IMAGE + 1), "Standard input is larger than 64 MiB.\n"),
    ],
    ids=["empty", "large"],
)
def test_standard_input_that_is_no_image_is_a_sentence(given: bytes, said: str) -> None:
    with serving() as service:
        done = subprocess.run(
            [*COMMAND, "predict", "-", "--url", service.url],
            input=given, capture_output=True, check=False, env=environment(),
        )  # fmt: skip
    assert (done.returncode, done.stderr.decode(), service.asked) == (2, said, [])


def test_a_file_too_large_for_the_memory_is_a_row(folder: Path, tmp_path: Path, program: Program) -> None:
    with (folder / "huge.jpg").open("wb") as file:
        file.truncate(1 << 36)
    (folder / "empty.jpg").touch()
    with serving() as service:
        done = program(
            "predict", folder, "--url", service.url, "--output", tmp_path / "out.jsonl",
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 33, 1 << 33)),
        )  # fmt: skip
        alone = program("predict", folder / "empty.jpg", folder / "row-0" / "0.jpg", "--url", service.url)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    errors = {row["path"]: (row["error"], row["message"]) for row in rows if row["error"]}
    assert errors == {
        "huge.jpg": ("unreadable_file", "Larger than 64 MiB"),
        "empty.jpg": ("empty_body", "The file is empty."),
    }, done.stderr
    assert (alone.returncode, "75.00%" in alone.stdout) == (1, True)
    assert alone.stderr == f"{folder / 'empty.jpg'}: The file is empty. (empty_body)\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", ""],
        ["predict", "IMAGE", "--explain", ""],
        ["predict", "IMAGE", "--model", ""],
        ["predict", "IMAGE", "--name", ""],
        ["predict", "IMAGE", "--name", "/1.0"],
        ["predict", "IMAGE", "--name", "\udcff"],
        ["predict", "IMAGE", "--api-key-file", ""],
        ["predict", "IMAGE", "--cacert", ""],
        ["predict", "IMAGE", "--concurrency", "65"],
        ["explain", "", "--out", "o.png"],
        ["explain", "IMAGE", "--out", ""],
        ["bulk", "FOLDER", "--output", "out", "--model", ""],
    ],
)
def test_an_option_without_a_value_is_refused(
    folder: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"IMAGE": str(folder / "row-0" / "0.jpg"), "FOLDER": str(folder)}
    with pytest.raises(SystemExit, match="2"):
        main([names.get(argument, argument) for argument in arguments])
    said = capsys.readouterr().err
    assert any(words in said for words in ("must not be empty", "must look like NAME", "must be at most 64")), said


def test_a_folder_of_no_name_is_not_the_present_one(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert main(["predict", str(folder), "--output", ""]) == 2
    assert "--output must end in .csv, .jsonl or .parquet, or be -; not ." in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_any_name_that_the_system_takes_is_a_tables(
    folder: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    longest = "x" * (255 - len(suffix) - (len(".unfinished-4194304-") if suffix == ".parquet" else 0))
    for name in (os.fsdecode(b"\xff"), longest):
        for _ in range(2):  # the second run continues the first one's
            with serving() as service:
                code = main(["predict", str(folder), "--url", service.url, "--output", str(tmp_path / (name + suffix))])
            assert code == 0, capsys.readouterr().err
        assert "0 answered; 6 had a row already" in capsys.readouterr().err
        assert (tmp_path / (name + suffix)).stat().st_size
    assert main(["predict", str(folder), "--output", str(tmp_path / ("x" * 256 + suffix))]) == 2
    assert "cannot be written: File name too long." in capsys.readouterr().err


def test_names_and_labels_cannot_steer_the_terminal(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = {**ANSWER, "predictions": [{"label": HOSTILE, "index": 1, "probability": 0.9}]}
    refusal = Scripted(400, {"error": {"code": "corrupt_image", "message": HOSTILE}})
    image, odd = str(folder / "row-0" / "0.jpg"), tmp_path / f"{HOSTILE}.csv"
    with serving(Scripted(content=answer), refusal, Scripted()) as service:
        assert main(["predict", image, "--url", service.url]) == 0
        assert main(["predict", image, "--url", service.url]) == 1
        assert main(["predict", str(folder), "--url", service.url, "--output", str(odd)]) == 0
        assert main(["predict", str(folder), "--url", service.url, "--output", str(odd / "x.csv")]) == 2
    with serving(Scripted(content={"models": [{**MODEL, "name": HOSTILE}]}), served=[]) as service:
        assert main(["models", service.url]) == 0
    shown = "".join(capsys.readouterr())
    assert shown.count(r"rose\x1b[31m\r") == 5
    assert not {"\x1b", "\r"} & set(shown)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has no key: it is empty."),
        (b" \n", "has no key: it is empty."),
        (b"\xff", "has no key: it is not text."),
        (b"a b", "must be printable ASCII, without spaces"),
        (None, "cannot be read: No such file or directory."),
    ],
)
def test_a_key_file_without_a_key_is_a_sentence(
    folder: Path, tmp_path: Path, content: bytes | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    with serving() as service:
        image = str(folder / "row-0" / "0.jpg")
        assert main(["predict", image, "--url", service.url, "--api-key-file", str(tmp_path / "key")]) == 2
    assert said in capsys.readouterr().err
    assert service.asked == []


@pytest.mark.parametrize("how", [["-OO", "-m", "visionserve.cli"], ["-W", "error", "-X", "dev", "-m", "visionserve"]])
def test_the_command_runs_as_python_can_run_it(folder: Path, how: list[str]) -> None:
    with serving() as service:
        command = [sys.executable, *how, "predict", str(folder / "row-0" / "0.jpg"), "--url", service.url]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "75.00%" in done.stdout
