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


def digest(card: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a card's canonical JSON: the number that the handler's metrics name too."""
    return hashlib.sha256(json.dumps(card, ensure_ascii=False).encode()).hexdigest()
