"""A table of predictions, CSV or JSON Lines, that grows row by row and survives whatever ends the run.

Columns: path, label, probability, label_2, probability_2, ..., novelty, model, version, error, message.
A row is written in one piece, so a kill can only leave one incomplete line at the end. Opening the file again cuts
that line off and reads which images have a row, so that the next run continues behind it.
"""

import csv
import fcntl
import io
import json
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from visionserve.cli.exit_codes import Stop
from visionserve.client import FileResult, ResponseError

Value = str | float | None
Record = dict[str, Value]

UNREADABLE = "unreadable_file"


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

    def paths(self, lines: Iterator[str]) -> Iterator[str]:
        """Yield the path of each row; ValueError or csv.Error at anything else."""
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

    def paths(self, lines: Iterator[str]) -> Iterator[str]:
        """Yield the path of each row."""
        for line in lines:
            content = json.loads(line)
            if not isinstance(content, dict) or list(content) != self._names:
                raise ValueError
            yield content["path"]


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

    def paths(self, lines: Iterator[str]) -> Iterator[str]:
        """Yield the path of each row; a quoted field may span lines."""
        for row in csv.reader(lines, strict=True):
            if len(row) != len(self._names):
                raise ValueError
            yield row[0]

    def _text(self, values: Sequence[object]) -> str:
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerow(values)
        return buffer.getvalue()


class ResumableTable:
    """An open file of rows; ``done`` holds the paths of the rows that it already had."""

    def __init__(self, path: Path, form: Form) -> None:
        """Open or create a file, and lock it.

        Raises:
            Stop: it cannot be opened, another run writes it, or it has other content.
        """
        self.path = path
        self._form = form
        self.done: set[str] = set()
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
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
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Stop(f"{self.path} is being written by another run: wait for it, or choose another file.") from error
        with self.path.open("rb") as stream:
            end = self._recover(stream)
        os.ftruncate(self._file, end)
        if end == 0:
            self._write(self._form.header())

    def add(self, record: Record) -> None:
        """Write a row; Stop when the disk is full."""
        self._write(self._form.line(record))

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

    def _recover(self, stream: BinaryIO) -> int:
        """Fill ``done`` and return the offset at which the last complete row ends."""
        header = self._form.header().encode()
        start = stream.read(len(header))
        if start != header:
            return self._offset_of_partial_header(start, header)
        offset = complete = len(header)
        at_end = False

        def lines() -> Iterator[str]:
            nonlocal offset, at_end
            for line in stream:
                if line.endswith(b"\n"):
                    offset += len(line)
                    yield line.decode()
            at_end = True

        try:
            for path in self._form.paths(lines()):
                self.done.add(path)
                complete = offset
        except (ValueError, csv.Error) as error:
            if not at_end:  # otherwise a row with line ends in its file name was cut off between them
                raise self._other_content(f"after byte {complete} there is other content") from error
        return complete

    def _offset_of_partial_header(self, start: bytes, header: bytes) -> int:
        if header.startswith(start):
            return 0
        raise self._other_content("it starts with other content")

    def _other_content(self, what: str) -> Stop:
        return Stop(f"{self.path} has other rows than this command with this --top-k ({what}): choose another file.")
