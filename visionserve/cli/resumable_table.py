"""Ledger: a CSV or JSON Lines file that grows row by row and survives whatever ends the run.

A row is written whole and at once, so a kill can only leave one half-written line at the end. Opening the file again
cuts that line off and tells which photographs are in it, so the next run goes on behind it.
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
from visionserve.cli.records import Record


class Form(Protocol):
    """How a row is a line."""

    def line(self, record: Record) -> str:
        """Return a row's text, line end included."""
        ...

    def header(self) -> str:
        """Return what stands before the first row; may be empty."""
        ...

    def paths(self, lines: Iterator[str]) -> Iterator[str]:
        """Yield the path of each row; ValueError or csv.Error at what is no row."""
        ...


class JsonLines:
    """An object a line."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)

    def line(self, record: Record) -> str:
        """Return a row's text."""
        return json.dumps(record) + "\n"

    def header(self) -> str:
        """There is none."""
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


class Ledger:
    """An open file of rows; ``done`` holds the paths that it already had."""

    def __init__(self, path: Path, form: Form) -> None:
        """Open or begin a file, and lock it.

        Raises:
            Stop: it cannot be opened, another run writes it, or it holds something else.
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
            self._write(self._form.header())  # a pipe or a device holds nothing to go on from
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
        """Write a row; Stop when there is no room."""
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
                f"{self.path} cannot be written ({error.strerror}): make room and give the same command again; "
                "what is answered is kept."
            ) from error

    def _recover(self, stream: BinaryIO) -> int:
        """Fill ``done`` and return where the last whole row ends."""
        header = self._form.header().encode()
        start = stream.read(len(header))
        if start != header:
            return self._begun(start, header)
        place = whole = len(header)
        at_end = False

        def lines() -> Iterator[str]:
            nonlocal place, at_end
            for line in stream:
                if line.endswith(b"\n"):
                    place += len(line)
                    yield line.decode()
            at_end = True

        try:
            for path in self._form.paths(lines()):
                self.done.add(path)
                whole = place
        except (ValueError, csv.Error) as error:
            if not at_end:  # otherwise a row whose file name has line ends was cut off between them
                raise self._strange(f"after byte {whole} stands something else") from error
        return whole

    def _begun(self, start: bytes, header: bytes) -> int:
        if header.startswith(start):
            return 0
        raise self._strange("it begins with something else")

    def _strange(self, what: str) -> Stop:
        return Stop(f"{self.path} holds no rows of this command with this --top-k ({what}): choose another file.")
