"""Archives: reads the card and the version of a .mar, and checks that what it holds is whole, without unpacking it."""

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.settings import SetupError

# ModelProto's field `graph`, and the wire type of messages and texts.
_GRAPH, _LENGTH_DELIMITED = 7, 2
_CARD = "card.json"
_MANIFEST = "MAR-INF/MANIFEST.json"


@dataclass(frozen=True)
class Archive:
    """A model as its archive describes it; ``name`` is the one TorchServe serves it under."""

    name: str
    version: str
    digest: str
    card: Mapping[str, Any]

    @property
    def needs_gpu(self) -> bool:
        """Whether its workers refuse to start without a GPU."""
        return self.card.get("device") == "cuda"


def read(path: Path) -> Archive:
    """Read an archive.

    Raises:
        SetupError: not a zip file, not made by `make archive`, or with a network or tensors that are cut off.
    """
    try:
        with zipfile.ZipFile(path) as content:
            card, manifest = json.loads(content.read(_CARD)), json.loads(content.read(_MANIFEST))
            version = str(manifest["model"]["modelVersion"])
            for name in content.namelist():
                if name in _WHOLE and not _WHOLE[name](content.read(name)):
                    raise ValueError(f"{name} is truncated or corrupt")
    except (OSError, zipfile.BadZipFile, KeyError, TypeError, ValueError, AttributeError) as error:
        raise SetupError(f"{path} is not a visionserve archive ({error}): build it with `make archive`.") from error
    return Archive(path.stem, version, digest(card), card)


def check_bundle(archive: Archive, bundle: Path) -> None:
    """Refuse an archive whose bundle beside it holds another model, such as after a roll-back; no bundle, no check.

    Raises:
        SetupError: their cards differ in more than the names of files and the device.
    """
    try:
        card = json.loads((bundle / _CARD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise SetupError(
            f"{bundle / _CARD} cannot be read ({error}): restore the bundle or remove its folder."
        ) from error
    if not isinstance(card, dict) or _model(card) != _model(archive.card):
        version = card.get("version", "without a version") if isinstance(card, dict) else "without a card"
        raise SetupError(
            f"{archive.name}.mar holds version {archive.version} of another model than {bundle}, which is {version}: "
            f"build it again with `make archive MODEL={archive.name}`."
        )


def _model(card: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in card.items() if key not in ("model", "device")}


def _is_whole_onnx(data: bytes) -> bool:
    """Whether the messages of an ONNX file end where it ends, and a graph is among them.

    https://protobuf.dev/programming-guides/encoding/: a key (field number and wire type), then a number or a length.
    """
    position, fields = 0, set()
    while position < len(data):
        key, position = _varint(data, position)
        fields.add(key >> 3)
        if key & 7 == _LENGTH_DELIMITED:
            length, position = _varint(data, position)
            position += length
        elif key & 7 == 0:
            _, position = _varint(data, position)
        else:
            return False
    return position == len(data) and _GRAPH in fields


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Return the number that begins at a position, and the position after it."""
    value = shift = 0
    while position < len(data) and shift < 64:
        byte = data[position]
        value, shift, position = value | (byte & 0x7F) << shift, shift + 7, position + 1
        if byte < 0x80:
            return value, position
    return 0, len(data) + 1


def _is_whole_safetensors(data: bytes) -> bool:
    """Whether the tensors of a file end where it ends: the header's length, the header in JSON, their bytes."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    return bool(8 + length + max(ends, default=0) == len(data))


# What a worker loads besides code, with the check that is possible without the libraries that load it.
_WHOLE: Mapping[str, Callable[[bytes], bool]] = {
    "model.onnx": _is_whole_onnx,
    "weights.safetensors": _is_whole_safetensors,
    "reference.safetensors": _is_whole_safetensors,
}


def digest(card: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a card's canonical JSON: the number that the handler's metrics name too."""
    return hashlib.sha256(json.dumps(card, ensure_ascii=False).encode()).hexdigest()
