"""A Parquet table: the format cannot grow, so new rows wait in a JSON Lines file beside it until the run is done."""

import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from visionserve.cli.exit_codes import Stop
from visionserve.cli.resumable_table import JsonLines, Record, ResumableTable

# Rows converted at once: enough for a good row group, some ten megabytes of memory.
_GROUP = 50_000
_NUMBERS = ("probability", "novelty")


class ParquetTable:
    """A Parquet file and the rows that wait beside it; ``done`` holds the paths of both."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        """Open or create a table; Stop when it cannot be read or written."""
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise Stop("Parquet needs pyarrow: install it, or choose a .csv or .jsonl file.") from error
        self._arrow, self._parquet = pyarrow, parquet
        self.path = path
        self._schema = pyarrow.schema([(name, _kind(pyarrow, name)) for name in names])
        old = self._done() if path.exists() else set()
        self._waiting = ResumableTable(path.with_name(path.name + ".rows.jsonl"), JsonLines(names))
        self.done = old | self._waiting.done

    def add(self, record: Record) -> None:
        """Add a row; Stop when the disk is full."""
        self._waiting.add(record)

    def close(self) -> None:
        """Close the file of waiting rows; they stay for the next run."""
        self._waiting.close()

    def complete(self) -> None:
        """Write a new table with the waiting rows, replace the old one by it, and remove the waiting rows."""
        partial = self.path.with_name(self.path.name + ".partial")
        try:
            with self._parquet.ParquetWriter(partial, self._schema, compression="zstd") as writer:
                for table in itertools.chain(self._old(), self._new()):
                    writer.write_table(table)
            partial.replace(self.path)
            self._waiting.path.unlink()
        except OSError as error:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise Stop(
                f"{self.path} cannot be written ({error.strerror or error}): free some space and repeat the "
                f"command; finished rows are kept in {self._waiting.path}."
            ) from error

    def _done(self) -> set[str]:
        try:
            with self._parquet.ParquetFile(self.path) as file:
                if file.schema_arrow.names != self._schema.names:
                    raise Stop(f"{self.path} has other columns (--top-k?): choose another file.")
                return {path for batch in file.iter_batches(columns=["path"]) for path in batch[0].to_pylist()}
        except (OSError, self._arrow.ArrowException) as error:
            raise Stop(f"{self.path} is not a readable Parquet file: choose another file.") from error

    def _old(self) -> Iterator[Any]:
        if self.path.exists():
            with self._parquet.ParquetFile(self.path) as file:
                for batch in file.iter_batches(_GROUP):
                    yield self._arrow.Table.from_batches([batch]).cast(self._schema)

    def _new(self) -> Iterator[Any]:
        with self._waiting.path.open(encoding="utf-8") as lines:
            while rows := [json.loads(line) for line in itertools.islice(lines, _GROUP)]:
                yield self._arrow.Table.from_pylist(rows, schema=self._schema)


def _kind(pyarrow: Any, name: str) -> Any:
    return pyarrow.float64() if name.startswith(_NUMBERS) else pyarrow.string()
