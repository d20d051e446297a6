"""The output of a run: Parquet parts with the rows of `visionserve predict`, and a file that says whose rows they are.

OUTPUT/part-20261129T141500Z-000012.parquet    one write each; a part is complete or not there
OUTPUT/_visionserve.json                       source, model, columns; readers of Parquet skip names with _
"""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow
from pyarrow import parquet

from visionserve.cli.bulk.storage import Storage
from visionserve.cli.exit_codes import Stop
from visionserve.cli.parquet import column_type
from visionserve.cli.resumable_table import Record

_IDENTITY = "_visionserve.json"


@dataclass(frozen=True)
class Identity:
    """What a part's rows depend on."""

    source: str
    model: str
    sha256: str  # of the bundle's files
    columns: list[str]


def digest(files: Mapping[str, bytes]) -> str:
    """Return the SHA-256 of a bundle's files, names included."""
    total = hashlib.sha256()
    for name, content in sorted(files.items()):
        total.update(hashlib.sha256(name.encode()).digest() + hashlib.sha256(content).digest())
    return total.hexdigest()


def claim(output: Storage, address: str, identity: Identity) -> None:
    """Note whose rows the output holds; Stop if it holds others, or files that are not parts."""
    names = output.files()
    if _IDENTITY in names:
        _compare(json.loads(output.read(_IDENTITY)), identity, address)
    elif any(not name.startswith(".") for name in names):
        raise Stop(f"{address} holds other files: choose an empty or new folder for --output.")
    else:
        output.write(_IDENTITY, (json.dumps(vars(identity), indent=2) + "\n").encode())


def _compare(earlier: Mapping[str, object], identity: Identity, address: str) -> None:
    different = [name for name, value in vars(identity).items() if earlier.get(name) != value]
    if not different:
        return
    what = {"source": "another source", "model": "another model", "sha256": "other weights", "columns": "other columns"}
    listed = ", ".join(
        what[name] + (f" ({earlier.get(name)})" if name in ("source", "model") else "") for name in different
    )
    raise Stop(f"{address} has the rows of {listed}: choose another --output.")


def images(output: Storage) -> set[str]:
    """Return the names of the images that have a row already."""
    done = set[str]()
    for name in output.files():
        if name.endswith(".parquet"):
            table = parquet.read_table(io.BytesIO(output.read(name)), columns=["path"])
            done.update(table.column("path").to_pylist())
    return done


def write(output: Storage, name: str, rows: Sequence[Record], columns: Sequence[str]) -> None:
    """Write rows as one part; the same name again replaces it, which a repeated task does."""
    schema = pyarrow.schema([(column, column_type(pyarrow, column)) for column in columns])
    content = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(list(rows), schema=schema), content, compression="zstd")
    output.write(name, content.getvalue())


def blocks(names: Sequence[str], size: int, run: str) -> Iterator[Any]:
    """Yield a table for each part that is to be written: its images' names as bytes, and the part's name."""
    for number, start in enumerate(range(0, len(names), size)):
        chunk = [name.encode("utf-8", "surrogateescape") for name in names[start : start + size]]
        part = f"part-{run}-{number:06d}.parquet"
        yield pyarrow.table({"name": chunk, "part": [part] * len(chunk)})
