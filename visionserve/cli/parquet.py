"""A Parquet table: the format cannot grow, so new rows wait in a JSON Lines file beside it until the run is done."""

import contextlib
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from visionserve.cli.exit_codes import Stop
from visionserve.cli.resumable_table import JsonLines, OnRow, Record, ResumableTable
from visionserve.client.http_messages import BUSY
from visionserve.files import atomic_write

# Rows converted at once: enough for a good row group, some ten megabytes of memory.
_GROUP = 50_000
_NUMBERS = ("probability", "novelty")
# Of the name of the file in which new rows wait.
WAITING = ".rows.jsonl"


class ParquetTable:
    """A Parquet file and the rows that wait beside it; ``done`` holds the paths of both."""

    def __init__(self, path: Path, names: Sequence[str], on_row: OnRow = lambda _: None) -> None:
        """Open or create a table; Stop when it cannot be read or written."""
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise Stop("Parquet needs pyarrow: pip install pyarrow, or choose a .csv or .jsonl file.") from error
        self._arrow, self._parquet = pyarrow, parquet
        self.path = path
        self._schema = pyarrow.schema([(name, column_type(pyarrow, name)) for name in names])
        self.repeated: set[str] = set()
        self.done: set[str] = set()
        self._waiting = ResumableTable(path.with_name(path.name + WAITING), JsonLines(names), on_row)
        self._new_paths = set(self._waiting.done)
        try:
            if path.exists():
                self._read_table(on_row)
        except Stop:
            self._waiting.close()
            self._remove_waiting()
            raise
        self.done |= self._new_paths
        self.repeated = (self.repeated | self._waiting.repeated) - self.done

    def add(self, record: Record) -> None:
        """Add a row; Stop when the disk is full."""
        self._waiting.add(record)
        self._new_paths.add(str(record["path"]))

    def close(self) -> None:
        """Close the file of waiting rows; they stay for the next run."""
        self._waiting.close()

    def complete(self) -> None:
        """Write a new table with the waiting rows, replace the old one by it, and remove the waiting rows."""
        try:
            if self._new_paths:
                with (
                    atomic_write(self.path) as unfinished,
                    unfinished.open("wb") as stream,
                    self._parquet.ParquetWriter(stream, self._schema, compression="zstd") as writer,
                ):
                    for table in itertools.chain(self._old(), self._new()):
                        writer.write_table(table)
            self._waiting.path.unlink()
        except OSError as error:
            raise Stop(
                f"{self.path} cannot be written ({error.strerror or error}): free some space and repeat the "
                f"command; finished rows are kept in {self._waiting.path}."
            ) from error

    @contextlib.contextmanager
    def _open(self) -> Iterator[Any]:
        """Open the table; by Python, since Arrow takes no names that are not UTF-8."""
        with self.path.open("rb") as stream, self._parquet.ParquetFile(stream) as file:
            yield file

    def _remove_waiting(self) -> None:
        """Remove the file of waiting rows if this run created it."""
        if self._waiting.path.stat().st_size == 0:
            self._waiting.path.unlink()

    def _read_table(self, on_row: OnRow) -> None:
        """Fill ``done`` and ``repeated`` with the rows of the table that no waiting row replaces."""
        try:
            with self._open() as file:
                if file.schema_arrow.names != self._schema.names:
                    raise Stop(f"{self.path} has other columns (--top-k?): choose another file.")
                for batch in file.iter_batches(columns=["path", "label", "model", "error"]):
                    for row in batch.to_pylist():
                        if row["path"] in self._new_paths:
                            continue
                        (self.repeated if row["error"] in BUSY else self.done).add(row["path"])
                        if row["error"] not in BUSY:
                            on_row(row)
        except (OSError, self._arrow.ArrowException) as error:
            raise Stop(f"{self.path} is not a readable Parquet file: choose another file.") from error

    def _old(self) -> Iterator[Any]:
        """Yield the table's rows, without those that a waiting row replaces."""
        if self.path.exists():
            with self._open() as file:
                for batch in file.iter_batches(_GROUP):
                    table = self._arrow.Table.from_batches([batch]).cast(self._schema)
                    yield table.filter([path not in self._new_paths for path in table.column("path").to_pylist()])

    def _new(self) -> Iterator[Any]:
        with self._waiting.path.open(encoding="utf-8") as lines:
            while rows := [json.loads(line) for line in itertools.islice(lines, _GROUP)]:
                yield self._arrow.Table.from_pylist(rows, schema=self._schema)


def column_type(pyarrow: Any, name: str) -> Any:
    """Return the type of a column by its name."""
    return pyarrow.float64() if name.startswith(_NUMBERS) else pyarrow.string()
