"""Reads constants out of a Java class file: the only list of TorchServe's settings that cannot be out of date.

The layout is that of the Java Virtual Machine Specification, chapter 4.
"""

import io
import struct
import zipfile
from importlib import util
from pathlib import Path
from typing import Any

# Constant tag -> how many bytes follow; a Utf8 (1) has its length in front. Long (5) and double (6) take two places.
_SIZES = {3: 4, 4: 4, 5: 8, 6: 8, 7: 2, 8: 2, 9: 4, 10: 4, 11: 4, 12: 4, 15: 3, 16: 2, 17: 4, 18: 4, 19: 2, 20: 2}
_UTF8, _STRING, _DOUBLE_WIDTH = 1, 8, (5, 6)


class JavaClass:
    """The constants of one class."""

    def __init__(self, data: bytes) -> None:
        stream = io.BytesIO(data)
        stream.read(8)  # magic number and version
        self._pool = _pool(stream)
        stream.read(6)  # access flags, this class, its superclass
        stream.read(2 * _u2(stream))  # interfaces
        self._fields = [self._field(stream) for _ in range(_u2(stream))]

    @classmethod
    def of_torchserve(cls, name: str) -> "JavaClass":
        """Read a class of TorchServe's jar, for example ``org/pytorch/serve/util/ConfigManager``."""
        found = util.find_spec("ts")
        assert found is not None and found.origin is not None
        with zipfile.ZipFile(Path(found.origin).parent / "frontend" / "model-server.jar") as jar:
            return cls(jar.read(f"{name}.class"))

    def constant_fields(self) -> set[str]:
        """Return the values of the class's constant String fields."""
        return {value for value in self._fields if value is not None}

    def strings(self) -> set[str]:
        """Return every String literal of the class's code."""
        return {self._text(target) for tag, target in self._pool.values() if tag == _STRING}

    def _text(self, place: int) -> str:
        text: str = self._pool[place][1]
        return text

    def _field(self, stream: io.BytesIO) -> str | None:
        stream.read(6)  # access flags, name, descriptor
        value = None
        for _ in range(_u2(stream)):
            name = self._text(_u2(stream))
            content = stream.read(struct.unpack(">I", stream.read(4))[0])
            if name == "ConstantValue":
                tag, target = self._pool[struct.unpack(">H", content)[0]]
                value = self._text(target) if tag == _STRING else None
        return value


def _pool(stream: io.BytesIO) -> dict[int, tuple[int, Any]]:
    pool: dict[int, tuple[int, Any]] = {}
    place, count = 1, _u2(stream)
    while place < count:
        tag = stream.read(1)[0]
        if tag == _UTF8:
            pool[place] = tag, stream.read(_u2(stream)).decode("utf-8", errors="replace")
        elif tag == _STRING:
            pool[place] = tag, _u2(stream)
        else:
            pool[place] = tag, stream.read(_SIZES[tag])
        place += 2 if tag in _DOUBLE_WIDTH else 1
    return pool


def _u2(stream: io.BytesIO) -> int:
    number: int = struct.unpack(">H", stream.read(2))[0]
    return number
