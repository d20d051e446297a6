"""Archives: reads the card and the version of a .mar, and checks that what it holds is whole, without unpacking it."""

import contextlib
import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher import releases
from launcher.releases import Release
from launcher.settings import SetupError

# ModelProto's field `graph`, and the wire type of messages and texts.
_GRAPH, _LENGTH_DELIMITED = 7, 2
_CARD = "card.json"
_MANIFEST = "MAR-INF/MANIFEST.json"


@dataclass(frozen=True)
class Archive:
    """A version of a model as its archive describes it; TorchServe serves it under this name and version.

    ``path`` is the archive, whose file may have any name.
    """

    name: str
    version: str
    digest: str
    card: Mapping[str, Any]
    path: Path = Path()

    @property
    def key(self) -> str:
        """What tells it from all others, as it stands in paths: "birds/1.0"."""
        return f"{self.name}/{self.version}"

    @property
    def title(self) -> str:
        """Name and version for people: "birds 1.0"."""
        return f"{self.name} {self.version}"

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
            name, version = (str(manifest["model"][key]) for key in ("modelName", "modelVersion"))
            if (card.get("name", name), card.get("version", version)) != (name, version):
                raise ValueError(f"its card and its manifest, {name} {version}, disagree")
            for entry in content.namelist():
                if entry in _WHOLE and not _WHOLE[entry](content.read(entry)):
                    raise ValueError(f"{entry} is truncated or corrupt")
    except OSError as error:
        raise SetupError(
            f"{path} cannot be read ({error.strerror}): let user {os.getuid()} read it and its folder."
        ) from error
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError, AttributeError) as error:
        raise SetupError(
            f"{path} is not a visionserve archive ({error}): build it with `make archive`, or move it away."
        ) from error
    return Archive(name, version, digest(card), card, path)


def read_all(paths: Iterable[Path], stated: Mapping[str, Release]) -> list[Archive]:
    """Read archives; of each name the version that answers comes first, as TorchServe makes the first one the default.

    Raises:
        SetupError: one cannot be read, two hold the same version, or none holds the version that should answer.
    """
    served: dict[str, Archive] = {}
    for archive in map(read, paths):
        other = served.setdefault(archive.key, archive)
        if other is not archive:
            raise SetupError(
                f"{other.path} and {archive.path} both hold {archive.title}: remove one of them, or give the model "
                "another version (`python -m training` has --version)."
            )
    answering = defaults(served.values(), stated)
    return sorted(served.values(), key=lambda archive: archive.version != answering[archive.name])


def asked_for(name: str | None, store: Path) -> str | None:
    """Return the model that is meant: a model's name, or that of an archive's file, as MODEL=mine-1.1 names it.

    Without a name it is the model that all readable archives hold; None if there are several, or none.
    """
    names = {path.stem: held for path in store.glob("*.mar") if (held := _name(path)) is not None}
    if name is None:
        held_names = set(names.values())
        return held_names.pop() if len(held_names) == 1 else None
    return name if name in names.values() else names.get(name, name)


def _name(path: Path) -> str | None:
    broken = contextlib.suppress(OSError, zipfile.BadZipFile, KeyError, TypeError, ValueError)
    with broken, zipfile.ZipFile(path) as content:
        return str(json.loads(content.read(_MANIFEST))["model"]["modelName"])
    return None


def defaults(archives: Collection[Archive], stated: Mapping[str, Release]) -> dict[str, str]:
    """Return the version that answers for each name; SetupError where the stated one is not there."""
    versions: dict[str, list[str]] = {}
    for archive in archives:
        versions.setdefault(archive.name, []).append(archive.version)
    answering = {name: releases.default_version(own, stated.get(name)) for name, own in versions.items()}
    for name, version in answering.items():
        if version not in versions[name]:
            raise SetupError(
                f"{releases.FILE_NAME} says that {name} {version} answers, and no archive holds it: bring it back, or "
                f"choose {' or '.join(versions[name])} with `python -m launcher release --model {name} --version ...`."
            )
    return answering


def check_bundle(archive: Archive, bundle: Path, served: Collection[Archive]) -> None:
    """Refuse an archive whose bundle beside it holds another model, such as after a roll-back; no bundle, no check.

    An earlier version may stay beside a newer bundle of its name, as long as another archive holds that one.

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
    if not isinstance(card, dict) or not any(_model(card) == _model(other.card) for other in served):
        version = card.get("version", "without a version") if isinstance(card, dict) else "without a card"
        raise SetupError(
            f"{archive.path.name} holds version {archive.version} of another model than {bundle}, which is {version}: "
            f"build it again with `make archive MODEL={bundle.name}`."
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
    "parts.safetensors": _is_whole_safetensors,
    "reference.safetensors": _is_whole_safetensors,
}


def digest(card: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a card's canonical JSON: the number that the handler's metrics name too."""
    return hashlib.sha256(json.dumps(card, ensure_ascii=False).encode()).hexdigest()
