"""A table of predictions, CSV or JSON Lines, that grows row by row and survives whatever ends the run.

Columns: path, label, probability, label_2, probability_2, ..., novelty, model, version, error, message.
A row is written in one piece, so a kill can only leave one incomplete line at the end. Opening the file again cuts
that line off and reads which images have a row, so that the next run continues behind it. Rows of images that the
service was too busy for are dropped then, to be tried again.
"""

import contextlib
import csv
import io
import json
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from visionserve.cli.exit_codes import Stop
from visionserve.client import FileResult, ResponseError
from visionserve.client.http_messages import BUSY
from visionserve.files import atomic_write

try:
    import fcntl
except ImportError:  # Windows: two runs on one file are not noticed there
    fcntl = None  # type: ignore[assignment]

Value = str | float | None
Record = dict[str, Value]
OnRow = Callable[[Record], None]

UNREADABLE = "unreadable_file"
_OPEN = os.O_RDWR | os.O_APPEND | getattr(os, "O_BINARY", 0)
_COPIED_AT_ONCE = 1 << 20  # bytes


def columns(top_k: int) -> list[str]:
    """Return the names of the columns of a table with ``top_k`` labels a row."""
    ranked = [name for rank in range(1, top_k + 1) for name in _ranked(rank)]
    return ["path", *ranked, "novelty", "model", "version", "error", "message"]


def record(path: str, result: FileResult, names: Sequence[str]) -> Record:
    """Return a result as a row with exactly the columns ``names``; a column without a value is None."""
    values: Record = {"path": path}
    if result.answer is not None:
        for rank, prediction in enumerate(result.answer.predictions, start=1):
            label, probability = _ranked(rank)
            values |= {label: prediction.label, probability: prediction.probability}
        model = result.answer.model
        values |= {"novelty": result.answer.novelty, "model": model.name, "version": model.version}
    elif isinstance(result.error, ResponseError):
        values |= {"error": result.error.code, "message": result.error.message}
    elif result.error is not None:
        values |= {"error": UNREADABLE, "message": result.error.strerror or str(result.error)}
    return {name: values.get(name) for name in names}


def printable_bytes(name: str) -> str:
    """Return a file's name as a row has it: bytes that are not UTF-8 as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def _ranked(rank: int) -> tuple[str, str]:
    return ("label", "probability") if rank == 1 else (f"label_{rank}", f"probability_{rank}")


class Form(Protocol):
    """How a row is written as a line."""

    def line(self, record: Record) -> str:
        """Return a row's text, line end included."""
        ...

    def header(self) -> str:
        """Return what precedes the first row; may be empty."""
        ...

    def rows(self, lines: Iterator[str]) -> Iterator[Record]:
        """Yield each row; ValueError or csv.Error at anything else."""
        ...


class JsonLines:
    """A JSON object a line."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)

    def line(self, record: Record) -> str:
        """Return a row's text."""
        return json.dumps(record) + "\n"

    def header(self) -> str:
        """Return nothing: JSON Lines have no header."""
        return ""

    def rows(self, lines: Iterator[str]) -> Iterator[Record]:
        """Yield each row."""
        for line in lines:
            content = json.loads(line)
            if not isinstance(content, dict) or list(content) != self._names:
                raise ValueError
            yield content


class Csv:
    """A table with a header."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)

    def line(self, record: Record) -> str:
        """Return a row's text."""
        return self._text(["" if value is None else value for value in record.values()])

    def header(self) -> str:
        """Return the columns' names."""
        return self._text(self._names)

    def rows(self, lines: Iterator[str]) -> Iterator[Record]:
        """Yield each row; a quoted field may span lines."""
        for row in csv.reader(lines, strict=True):
            if len(row) != len(self._names):
                raise ValueError
            yield dict(zip(self._names, row, strict=True))

    def _text(self, values: Sequence[object]) -> str:
        buffer = io.StringIO()
        # Some versions of Python leave a carriage return without quotes, which then ends the row for every reader.
        quote_all = any("\r" in str(value) for value in values)
        csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL).writerow(
            values
        )
        return buffer.getvalue()


class ResumableTable:
    """An open file of rows; ``done`` has the paths of the rows that it already had.

    ``repeated`` has the paths whose row was dropped because the service was too busy for them.
    """

    def __init__(self, path: Path, form: Form, on_row: OnRow = lambda _: None) -> None:
        """Open or create a file, and lock it.

        Args:
            on_row: is called with each row that the file has already.

        Raises:
            Stop: it cannot be opened, another run writes it, or it has other content.
        """
        self.path = path
        self._form = form
        self._on_row = on_row
        self.done: set[str] = set()
        self.repeated: set[str] = set()
        try:
            self._file = os.open(path, _OPEN | os.O_CREAT, 0o644)
        except OSError as error:
            raise Stop(f"{path} cannot be written: {error.strerror}.") from error
        try:
            self._prepare()
        except BaseException:
            os.close(self._file)
            raise

    def _prepare(self) -> None:
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            self._write(self._form.header())  # a pipe or a device has no earlier rows
            return
        if not _lock(self._file) or not os.path.samestat(os.fstat(self._file), self.path.stat()):
            raise Stop(f"{self.path} is being written by another run: wait for it, or choose another file.")
        with self.path.open("rb") as stream:
            end, dropped = self._recover(stream)
        os.ftruncate(self._file, end)
        if end == 0:
            self._write(self._form.header())
        if dropped:
            self._rewrite_without(dropped, end)

    def add(self, record: Record) -> None:
        """Write a row; Stop when the disk is full."""
        self._write(self._form.line(record))

    def complete(self) -> None:
        """Do nothing: every row is in the file."""

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _write(self, text: str) -> None:
        data = text.encode()
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise Stop(
                f"{self.path} cannot be written ({error.strerror}): free some space and repeat the command; "
                "finished rows are kept."
            ) from error

    def _recover(self, stream: BinaryIO) -> tuple[int, list[tuple[int, int]]]:
        """Fill ``done`` and ``repeated``.

        Returns:
            The offset at which the last complete row ends, and where the rows to drop start and end.
        """
        header = self._form.header().encode()
        start = stream.read(len(header))
        if start != header:
            return self._offset_of_partial_header(start, header), []
        offset = complete = len(header)
        at_end = False
        dropped = []

        def lines() -> Iterator[str]:
            nonlocal offset, at_end
            for line in stream:
                if line.endswith(b"\n"):
                    offset += len(line)
                    yield line.decode()
            at_end = True

        try:
            for row in self._form.rows(lines()):
                if row["error"] in BUSY:
                    self.repeated.add(str(row["path"]))
                    dropped.append((complete, offset))
                else:
                    self.done.add(str(row["path"]))
                    self._on_row(row)
                complete = offset
        except (ValueError, csv.Error) as error:
            if not at_end:  # otherwise a row with line ends in its file name was cut off between them
                raise self._other_content(f"after byte {complete} there is other content") from error
        return complete, dropped

    def _offset_of_partial_header(self, start: bytes, header: bytes) -> int:
        if header.startswith(start):
            return 0
        raise self._other_content("it starts with other content")

    def _rewrite_without(self, dropped: list[tuple[int, int]], end: int) -> None:
        """Replace the file by one without some rows, in one step, and go on with that."""
        target = self.path.resolve()
        try:
            with atomic_write(target, stat.S_IMODE(os.fstat(self._file).st_mode)) as unfinished:
                with target.open("rb") as source, unfinished.open("wb") as copy:
                    offset = 0
                    for first, behind in [*dropped, (end, end)]:
                        _copy(source, copy, offset, first)
                        offset = behind
                replacement = os.open(unfinished, _OPEN)
                _lock(replacement)
        except OSError as error:
            raise Stop(f"{self.path} cannot be written: {error.strerror}.") from error
        os.close(self._file)
        self._file = replacement

    def _other_content(self, what: str) -> Stop:
        return Stop(f"{self.path} has other rows than this command with this --top-k ({what}): choose another file.")


def _lock(file: int) -> bool:
    """Lock an open file until it is closed; False if another process has it."""
    if fcntl is None:
        return True
    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _copy(source: BinaryIO, target: BinaryIO, start: int, end: int) -> None:
    source.seek(start)
    while start < end:
        data = source.read(min(_COPIED_AT_ONCE, end - start))
        target.write(data)
        start += len(data)
