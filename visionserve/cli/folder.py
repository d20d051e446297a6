"""Classify the images of a folder into a table that the next run continues, and report how many have an answer.

An image whose error is the service's (busy, no worker, too slow) has a row too; the same command drops that row and
tries the image again, after all others. When several in a row end so, a sample image shows whether the service is the
cause: if it answers that one, the run goes on. So images that always fail, however many, keep no run from the rest.
"""

import argparse
import base64
import contextlib
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from visionserve.cli import exit_codes, image_files, options
from visionserve.cli.exit_codes import Stop
from visionserve.cli.image_files import printable
from visionserve.cli.output import STANDARD_OUTPUT, put
from visionserve.cli.parquet import WAITING, ParquetTable
from visionserve.cli.predictors import Overlays, Predictor, stop_for_request
from visionserve.cli.resumable_table import (
    Csv,
    JsonLines,
    OnRow,
    Record,
    ResumableTable,
    columns,
    printable_bytes,
    record,
)
from visionserve.cli.tally import Tally
from visionserve.client import ResponseError, ServiceUnreachable
from visionserve.client.http_messages import BUSY
from visionserve.files import IMAGE_SUFFIXES, atomic_write

_TOP_K = 5
# After so many images in a row that the service was too busy for, it gets the sample image.
_BUSY_IN_A_ROW = 8
# A grey square of 16 pixels, as PNG.
SAMPLE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAAAAAA6mKC9AAAAD0lEQVR42mNoQAMMI1sAAAUMgAHjM1mKAAAAAElFTkSuQmCC"
)


class Rows(Protocol):
    """A table of rows; ``done`` has the paths that need no new row, ``repeated`` those whose row was dropped."""

    done: set[str]
    repeated: set[str]

    def add(self, record: Record) -> None:
        """Write a row; Stop when the disk is full."""
        ...

    def complete(self) -> None:
        """Make a table of all rows so far."""
        ...


def run(folder: Path, args: argparse.Namespace) -> int:
    """Classify the images of a folder that have no row yet; return the exit code."""
    overlays = Overlays(folder, args.explain) if args.explain is not None else None
    images = {_name(path, folder) for path in image_files.walk(folder, _report)}
    if not images:
        raise Stop(f"{folder} contains no image files ({', '.join(IMAGE_SUFFIXES)}).")
    names = columns(args.top_k or _TOP_K)
    tally = Tally(images, args.labels is not None)
    with (
        _table(args.output, folder, names, tally.add_earlier) as rows,
        options.predictor(args, args.top_k, overlays) as predictor,
        _completed(rows),
    ):
        if others := tally.earlier_models - {predictor.model}:
            raise Stop(
                f"{args.output} has rows of {', '.join(sorted(others))}, not of {predictor.model}: choose another file."
            )
        noted = bool(rows.done)  # a table without a row is of no folder yet
        if noted:
            _note_folder(args.output, folder)  # it may have been moved
        try:
            with _progress(len(images), tally.before) as advance:
                for result in predictor.predict_many(_new_images(folder, rows)):
                    if isinstance(result.error, ResponseError):
                        stop_for_request(result.error)
                    row = record(_name(Path(result.path), folder), result, names)
                    if not noted:
                        _note_folder(args.output, folder)
                        noted = True
                    rows.add(row)
                    tally.add(row)
                    advance()
                    if tally.busy_in_a_row >= _BUSY_IN_A_ROW:
                        _stop_if_busy(predictor)
                        tally.busy_in_a_row = 0
        finally:
            _report(tally.summary(args.output) + ".")
        if tally.only_busy:
            _stop_if_busy(predictor)
    return exit_codes.OK


@contextlib.contextmanager
def _completed(rows: Rows) -> Iterator[None]:
    """Complete the table however the run ends, but for Ctrl-C: writing a large one takes a while."""
    try:
        yield
    except Exception:
        with contextlib.suppress(Stop):  # such as a full disk: the user sees what ended the run
            rows.complete()
        raise
    rows.complete()


def _stop_if_busy(predictor: Predictor) -> None:
    """Send the sample image; Stop if the service is too busy for that one too."""
    try:
        predictor.predict(SAMPLE)
    except (ResponseError, ServiceUnreachable) as error:
        if isinstance(error, ServiceUnreachable) and error.cause != "timeout":
            raise
        if isinstance(error, ServiceUnreachable) or error.code in BUSY:
            reason = error.message if isinstance(error, ResponseError) else str(error)
            raise Stop(
                f"The service is too busy or not ready: {reason} Repeat the same command later.",
                exit_codes.UNREACHABLE,
            ) from error


def _new_images(folder: Path, rows: Rows) -> Iterator[Path]:
    """Yield the images without a row; those that an earlier run tried in vain come last."""
    repeated = []
    for path in image_files.walk(folder, lambda _: None):
        name = _name(path, folder)
        if name in rows.repeated:
            repeated.append(path)
        elif name not in rows.done:
            yield path
    yield from repeated


def _name(path: Path, folder: Path) -> str:
    """Return an image's name in a table: its path below the folder, so that a run from elsewhere matches it."""
    return printable_bytes(path.relative_to(folder).as_posix())


@contextlib.contextmanager
def _table(output: str | None, folder: Path, names: list[str], on_row: OnRow) -> Iterator[Rows]:
    """Yield the table to write to; ``on_row`` gets every row that it has already. Stop if it is of another folder."""
    if output is None or output == STANDARD_OUTPUT:
        yield _Printed(JsonLines(names))
        return
    path = Path(output)
    if path.suffix.lower() not in (".csv", ".jsonl", ".ndjson", ".parquet"):
        raise Stop(f"--output must end in .csv, .jsonl or .parquet, or be -; not {output}.")
    _check_folder(path, folder)
    rows: ResumableTable | ParquetTable
    match path.suffix.lower():
        case ".csv":
            rows = ResumableTable(path, Csv(names), on_row)
        case ".jsonl" | ".ndjson":
            rows = ResumableTable(path, JsonLines(names), on_row)
        case _:
            rows = ParquetTable(path, names, on_row)
    with contextlib.closing(rows):
        yield rows


def _check_folder(table: Path, folder: Path) -> None:
    """Stop if a table has the rows of another folder, whose images may have the same names."""
    note = _folder_note(table)
    try:
        if not note.is_file() or not _has_rows(table):
            return
    except OSError:  # such as a name that is too long: then there is no note
        return
    earlier = Path(note.read_text(encoding="utf-8", errors="surrogateescape").rstrip("\n"))
    # A folder that is not there any more was moved or renamed.
    if earlier.is_dir() and not earlier.samefile(folder):
        raise Stop(f"{table} has the rows of {earlier}, not of {folder}: choose another file.")


def _has_rows(table: Path) -> bool:
    waiting = table.with_name(table.name + WAITING)
    if waiting.is_file() and waiting.stat().st_size:
        return True
    if not table.is_file():
        return False
    with table.open("rb") as stream:
        lines = len(list(itertools.islice(stream, 2)))
    return lines > (table.suffix.lower() == ".csv")  # which has a header


def _note_folder(output: str | None, folder: Path) -> None:
    """Keep beside a table which folder its rows are of."""
    table = Path(output or STANDARD_OUTPUT)
    if output in (None, STANDARD_OUTPUT) or (table.exists() and not table.is_file()):
        return  # a pipe or a device has no earlier rows
    with contextlib.suppress(OSError):  # nobody may make files there: then nobody is warned
        text = f"{folder.resolve()}\n".encode("utf-8", "surrogateescape")
        with atomic_write(_folder_note(table)) as unfinished:
            unfinished.write_bytes(text)


def _folder_note(table: Path) -> Path:
    return table.with_name(f".{table.name}.folder")


class _Printed:
    """Rows on standard output; they cannot be continued."""

    def __init__(self, form: JsonLines) -> None:
        self.done: set[str] = set()
        self.repeated: set[str] = set()
        self._form = form

    def add(self, record: Record) -> None:
        """Print a row at once, so that a pipe can follow."""
        put(self._form.line(record), end="")

    def complete(self) -> None:
        """Do nothing: every row is printed."""


@contextlib.contextmanager
def _progress(total: int, before: int) -> Iterator[Callable[[], object]]:
    """Yield a function to call for every row; shows a bar on a terminal that can move its cursor."""
    from tqdm import tqdm

    disable = True if os.environ.get("TERM") == "dumb" else None  # None: on a terminal only
    with tqdm(total=total, initial=before, unit=" images", disable=disable, smoothing=0.1, file=sys.stderr) as bar:
        yield bar.update


def _report(text: str) -> None:
    print(printable(text), file=sys.stderr)
