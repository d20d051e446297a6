"""Reads the records of a .wandb file: LevelDB's log format behind a header of seven bytes."""

import struct
from collections.abc import Iterator
from pathlib import Path

from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

HEADER, BLOCK = 7, 32768
ENTRY = struct.Struct("<IHB")  # checksum, length, kind
WHOLE, LAST = 1, 4


def records(path: Path) -> Iterator[Record]:
    """Yield the records in the order in which they were logged."""
    data, place, parts = path.read_bytes(), HEADER, b""
    while place + ENTRY.size <= len(data):
        left = BLOCK - place % BLOCK
        if left < ENTRY.size:  # an entry does not begin so near to the end of a block
            place += left
            continue
        _, length, kind = ENTRY.unpack_from(data, place)
        place += ENTRY.size
        parts += data[place : place + length]
        place += length
        if kind in (WHOLE, LAST):
            yield Record.FromString(parts)
            parts = b""
