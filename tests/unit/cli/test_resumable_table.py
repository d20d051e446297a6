import csv
import json
from pathlib import Path
from typing import Any

import pytest

from visionserve.cli.exit_codes import Stop
from visionserve.cli.parquet import ParquetTable
from visionserve.cli.resumable_table import Csv, Form, JsonLines, Record, ResumableTable, columns, record
from visionserve.client import Answer, FileResult, Prediction, ResponseError
from visionserve.client.results import ModelName

NAMES = columns(2)
ANSWER = Answer((Prediction("a, b", 0, 0.5), Prediction('c"d', 1, 0.25)), 0.125, ModelName("m", "1"), "id")
FORMS: dict[str, Form] = {"csv": Csv(NAMES), "jsonl": JsonLines(NAMES)}
STRANGE = 'a,"b"\nc\r\n\'; é.jpg'


def row(path: str) -> Record:
    return record(path, FileResult(Path(path), answer=ANSWER), NAMES)


@pytest.fixture(params=list(FORMS))
def form(request: pytest.FixtureRequest) -> Form:
    return FORMS[request.param]


def written(path: Path, form: Form, *paths: str) -> bytes:
    table = ResumableTable(path, form)
    for name in paths:
        table.add(row(name))
    table.close()
    return path.read_bytes()


def test_a_row_has_every_column_once() -> None:
    assert row("p") == {
        "path": "p",
        "label": "a, b",
        "probability": 0.5,
        "label_2": 'c"d',
        "probability_2": 0.25,
        "novelty": 0.125,
        "model": "m",
        "version": "1",
        "error": None,
        "message": None,
    }


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ResponseError(400, "corrupt_image", "It is broken."), "corrupt_image", "It is broken."),
        (PermissionError(13, "Permission denied"), "unreadable_file", "Permission denied"),
    ],
)
def test_a_file_without_an_answer_is_a_row_with_the_reason(error: Any, code: str, message: str) -> None:
    values = record("p", FileResult(Path("p"), error=error), NAMES)
    assert (values["error"], values["message"], values["label"]) == (code, message, None)


def test_what_was_written_is_known_when_the_file_is_opened_again(tmp_path: Path, form: Form) -> None:
    path = tmp_path / "rows"
    before = written(path, form, "a.jpg", STRANGE, "c.jpg")
    table = ResumableTable(path, form)
    assert table.done == {"a.jpg", STRANGE, "c.jpg"}
    table.close()
    assert path.read_bytes() == before


def test_a_csv_is_what_the_csv_module_reads(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    written(path, FORMS["csv"], STRANGE)
    with path.open(newline="") as stream:
        assert next(csv.DictReader(stream))["path"] == STRANGE


def test_json_lines_are_json(tmp_path: Path) -> None:
    lines = written(tmp_path / "rows.jsonl", FORMS["jsonl"], STRANGE).decode().splitlines()
    assert json.loads(lines[0])["path"] == STRANGE


def test_a_file_cut_off_at_any_byte_is_repaired_and_continued(tmp_path: Path, form: Form) -> None:
    path = tmp_path / "rows"
    whole = written(path, form, "a.jpg", STRANGE)
    first = written(tmp_path / "first", form, "a.jpg")
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        table = ResumableTable(path, form)
        assert table.done == ({"a.jpg"} if length >= len(first) else set())
        for name in ["a.jpg", STRANGE]:
            if name not in table.done:
                table.add(row(name))
        table.close()
        assert path.read_bytes() == whole


@pytest.mark.parametrize("content", [b"something else\n", b"{}\n{}\n", b"path,label\n", b"\x00\xff\n", b"1\n"])
def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path: Path, form: Form, content: bytes) -> None:
    path = tmp_path / "rows"
    path.write_bytes(content)
    with pytest.raises(Stop, match="choose another file"):
        ResumableTable(path, form)
    assert path.read_bytes() == content


def test_junk_between_rows_is_refused_and_left_alone(tmp_path: Path, form: Form) -> None:
    path = tmp_path / "rows"
    whole = written(path, form, "a.jpg") + b"junk\n" + form.line(row("b.jpg")).encode()
    path.write_bytes(whole)
    with pytest.raises(Stop, match="after byte"):
        ResumableTable(path, form)
    assert path.read_bytes() == whole


def test_two_runs_cannot_write_one_file(tmp_path: Path, form: Form) -> None:
    held = ResumableTable(tmp_path / "rows", form)
    with pytest.raises(Stop, match="another run"):
        ResumableTable(tmp_path / "rows", form)
    held.close()


def test_a_device_that_is_full_is_one_sentence(form: Form) -> None:
    with pytest.raises(Stop, match="No space left on device"):
        ResumableTable(Path("/dev/full"), form).add(row("a.jpg"))


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path, form: Form) -> None:
    with pytest.raises(Stop, match="No such file or directory"):
        ResumableTable(tmp_path / "missing" / "rows", form)


def paths_in(path: Path) -> list[str]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        paths: list[str] = file.read().column("path").to_pylist()
    return paths


def test_a_parquet_table_grows_over_runs(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    for names in (["a.jpg", STRANGE], ["c.jpg"]):
        table = ParquetTable(path, NAMES)
        for name in names:
            table.add(row(name))
        table.complete()
        table.close()
    assert paths_in(path) == ["a.jpg", STRANGE, "c.jpg"]
    assert list(tmp_path.iterdir()) == [path]
    table = ParquetTable(path, NAMES)
    assert table.done == {"a.jpg", STRANGE, "c.jpg"}
    table.close()


def test_rows_of_a_parquet_run_that_was_killed_are_kept_for_the_next(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    table = ParquetTable(path, NAMES)
    table.add(row("a.jpg"))
    table.close()
    assert not path.exists()
    table = ParquetTable(path, NAMES)
    assert table.done == {"a.jpg"}
    table.add(row("b.jpg"))
    table.complete()
    table.close()
    assert paths_in(path) == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("content", [b"", b"PAR1 not at all"])
def test_a_file_that_is_not_parquet_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(content)
    with pytest.raises(Stop, match="not a readable Parquet file"):
        ParquetTable(path, NAMES)
    assert path.read_bytes() == content


def test_a_parquet_of_other_columns_is_refused(tmp_path: Path) -> None:
    table = ParquetTable(tmp_path / "rows.parquet", NAMES)
    table.add(row("a.jpg"))
    table.complete()
    table.close()
    with pytest.raises(Stop, match="other columns"):
        ParquetTable(tmp_path / "rows.parquet", columns(3))
