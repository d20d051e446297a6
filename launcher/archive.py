"""Archives: reads the card and the version of a .mar without unpacking it."""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.settings import SetupError

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
        SetupError: not a zip file, or not made by `make archive`.
    """
    try:
        with zipfile.ZipFile(path) as content:
            card, manifest = json.loads(content.read(_CARD)), json.loads(content.read(_MANIFEST))
        version = str(manifest["model"]["modelVersion"])
    except (OSError, zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
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


def digest(card: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a card's canonical JSON: the number that the handler's metrics name too."""
    return hashlib.sha256(json.dumps(card, ensure_ascii=False).encode()).hexdigest()
