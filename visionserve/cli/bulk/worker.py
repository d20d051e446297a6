"""A worker of the cluster: reads, decodes and classifies the images of a block, and writes their rows as one part."""

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow

from visionserve.cli import local
from visionserve.cli.bulk import parts
from visionserve.cli.bulk.storage import Storage
from visionserve.cli.predictors import stop_for_request
from visionserve.cli.resumable_table import columns, printable_bytes, record
from visionserve.client import FileResult, ResponseError
from visionserve.client.ordered_map import DaemonThreads, ordered_map

# Reads at once: while one batch is classified, the next ones arrive from a bucket that answers in some 50 ms.
_READERS = 16


class Classify:
    """Called by Ray with one block at a time; one process, one engine on one thread, as a process of `predict`.

    Args:
        files: returns the bundle's files by name; of Ray's object store, so that no folder need be shared.
    """

    def __init__(self, files: Callable[[], dict[str, bytes]], source: str, output: str, top_k: int) -> None:
        # Ray kills its workers, which leaves files behind: the folder goes as soon as the engine has read it.
        with tempfile.TemporaryDirectory(prefix="visionserve-") as folder:
            for name, content in files().items():
                (Path(folder) / name).write_bytes(content)
            self._predictor = local.LocalPredictor(Path(folder), top_k)
            self._batch_size = self._predictor.batch_size
            self._predictor.load()
        self._source, self._output = Storage.open(source), Storage.open(output)
        self._columns = columns(top_k)

    def __call__(self, block: Any) -> Any:
        """Classify a block of names; return a table of one row: how many images, and errors by their code as JSON."""
        names = [name.decode("utf-8", "surrogateescape") for name in block.column("name").to_pylist()]
        rows, errors = [], Counter[str]()
        for name, result in zip(names, self._results(names), strict=True):
            if isinstance(result.error, ResponseError):
                stop_for_request(result.error)
            row = record(printable_bytes(name), result, self._columns)
            rows.append(row)
            errors[str(row["error"] or "")] += 1
        parts.write(self._output, block.column("part")[0].as_py(), rows, self._columns)
        return pyarrow.table({"images": [len(rows)], "errors": [json.dumps(errors)]})

    def _results(self, names: Sequence[str]) -> Iterator[FileResult]:
        with DaemonThreads(_READERS) as threads:
            contents = ordered_map(threads, self._content, names, self._batch_size + _READERS)
            for start in range(0, len(names), self._batch_size):
                paths = [PurePosixPath(name) for name in names[start : start + self._batch_size]]
                yield from self._predictor.classify_contents(paths, list(islice(contents, len(paths))))

    def _content(self, name: str) -> bytes | OSError:
        try:
            return self._source.read(name)
        except OSError as error:
            return error
