"""The model card: everything that belongs to a model and to nothing else, in one JSON file beside its weights.

Labels, input, normalisation and temperature are written by training and read by serving; nobody guesses them.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, cast

from visionserve.errors import BundleError

Device = Literal["cpu", "cuda"]
FILE_NAME = "card.json"
# Words of the protocols' own paths: a model of such a name is read as one of them by clients and gateways.
RESERVED_NAMES = frozenset(
    (
        "docs", "explain", "explanations", "health", "infer", "invocations", "live", "livez", "metrics", "models",
        "openapi.yaml", "ping", "predict", "predictions", "ready", "readyz", "v1", "v2", "versions", "workflows",
    )
)  # fmt: skip


@dataclass(frozen=True)
class Input:
    """What the network sees: a square of ``size`` pixels, cut from the centre of the image.

    ``crop`` is the side of that square as a fraction of the image's shorter side. ``mean`` and ``std`` are per
    channel (R, G, B), for pixels on a 0-1 scale.
    """

    size: int
    crop: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class SecondLook:
    """When and how an image is classified a second time, closer: the answer is then the mean of both.

    ``below`` is the probability of the best label, 0-1, under which that is done; ``zoom`` the side of the second
    square as a share of the first one's. It lies where the class map of the best label has its maximum.
    """

    below: float
    zoom: float

    def __post_init__(self) -> None:
        if not 0 < self.below <= 1 or not 0 < self.zoom < 1:
            raise BundleError(
                f"second_look needs below above 0 and at most 1, and zoom between 0 and 1, not {self.below} and "
                f"{self.zoom}"
            )


@dataclass(frozen=True)
class Parts:
    """Parts of the objects in a model's images, such as a bird's head: what its class maps point at.

    ``accuracy`` is the share, 0-1, of ``images`` test images whose named part is the nearest one to the heatmap's
    maximum.
    """

    names: tuple[str, ...]
    accuracy: float
    images: int


INT8 = "model.int8.onnx"


@dataclass(frozen=True)
class ModelCard:
    """A model's name, version, labels, input, calibration, metrics and where it came from.

    ``heatmap`` is False, and only then in the file, where the network has no class maps. ``second_look`` is in the file
    where unsure images are looked at again, ``parts`` where explanations name the part under the heat.
    """

    name: str
    version: str
    architecture: str
    labels: tuple[str, ...]
    input: Input
    temperature: float = 1.0
    model: str = INT8
    device: Device = "cpu"
    heatmap: bool = True
    second_look: SecondLook | None = None
    parts: Parts | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise BundleError("a card needs two or more labels, each once")
        if self.temperature <= 0:
            raise BundleError(f"temperature must be above 0, not {self.temperature}")
        if self.device not in ("cpu", "cuda"):
            raise BundleError(f"device must be cpu or cuda, not {self.device!r}")
        if not isinstance(self.heatmap, bool):
            raise BundleError(f"heatmap must be true or false, not {self.heatmap!r}")
        if self.second_look is not None and not self.heatmap:
            raise BundleError("second_look needs class maps, which this network does not have")

    @property
    def digest(self) -> str:
        """SHA-256 of the card's canonical JSON, 64 hexadecimal digits."""
        return hashlib.sha256(self._json(indent=None).encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write the card as readable JSON."""
        path.write_text(self.text(), encoding="utf-8")

    def text(self) -> str:
        """Return the content of the card's file."""
        return self._json(indent=2) + "\n"

    @classmethod
    def load(cls, path: Path) -> "ModelCard":
        """Read a card; an unknown, missing or unusable entry is a BundleError that names it."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BundleError(f"cannot read the model card {path}: {error}") from error
        entries = _entries(cls, content, str(path))
        shape = _entries(Input, entries.get("input"), f"{path}: input")
        try:
            network_input = Input(
                int(shape["size"]), float(shape["crop"]), _triple(shape["mean"]), _triple(shape["std"])
            )
            labels = tuple(str(label) for label in entries["labels"])
            return cls(
                **(
                    entries
                    | {"input": network_input, "labels": labels}
                    | {"second_look": _second_look(entries, path), "parts": _parts(entries, path)}
                )
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{path}: a required entry is missing or of the wrong type ({error})") from error

    def _json(self, indent: int | None) -> str:
        content = asdict(self)
        if self.heatmap:
            del content["heatmap"]
        if self.second_look is None:
            del content["second_look"]
        if self.parts is None:
            del content["parts"]
        return json.dumps(content, indent=indent, ensure_ascii=False)


def check_name(name: str) -> None:
    """Refuse a name under which a model cannot be served."""
    if name.lower() in RESERVED_NAMES:
        raise BundleError(
            f"a model cannot be named {name}: it is a word of the inference protocols; choose another name"
        )


def _entries(owner: type, content: object, where: str) -> dict[str, Any]:
    """Return ``content`` as the keyword arguments of ``owner``, refusing keys that it does not have."""
    if not isinstance(content, dict):
        raise BundleError(f"{where}: expected a JSON object")
    unknown = sorted(set(content) - {entry.name for entry in fields(owner)})
    if unknown:
        raise BundleError(f"{where}: unknown entries: {', '.join(unknown)}")
    return cast(dict[str, Any], content)


def _second_look(entries: dict[str, Any], path: Path) -> SecondLook | None:
    if entries.get("second_look") is None:
        return None
    policy = _entries(SecondLook, entries["second_look"], f"{path}: second_look")
    return SecondLook(float(policy["below"]), float(policy["zoom"]))


def _parts(entries: dict[str, Any], path: Path) -> Parts | None:
    if entries.get("parts") is None:
        return None
    parts = _entries(Parts, entries["parts"], f"{path}: parts")
    return Parts(tuple(map(str, parts["names"])), float(parts["accuracy"]), int(parts["images"]))


def _triple(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
