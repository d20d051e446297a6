"""What the service says, as typed values; read from its own JSON and from Open Inference V2 tensors."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Prediction:
    """A label, its index among the model's labels, and its calibrated probability, 0-1."""

    label: str
    index: int
    probability: float


@dataclass(frozen=True)
class ModelName:
    """Which model answered."""

    name: str
    version: str


@dataclass(frozen=True)
class Answer:
    """What the service says about one image.

    ``novelty`` is 0 (very like the training photographs) to 1 (unlike all of them); ``timings`` are seconds by stage
    (decode, inference, total), as the service stated them; ``heatmap`` is a grey PNG, where one was asked for.
    """

    predictions: tuple[Prediction, ...]
    novelty: float
    model: ModelName
    request_id: str
    timings: Mapping[str, float] = field(default_factory=dict)
    heatmap: bytes | None = None

    @property
    def best(self) -> Prediction:
        """The most probable label."""
        return self.predictions[0]


@dataclass(frozen=True)
class Workers:
    """How many of a model's workers can answer."""

    ready: int
    total: int


@dataclass(frozen=True)
class Model:
    """A model that is served; ``card`` is filled where one model was asked for."""

    name: str
    version: str
    digest: str
    status: str
    workers: Workers
    card: Mapping[str, Any] | None = None


def read_native(content: Mapping[str, Any], request_id: str, timings: Mapping[str, float]) -> Answer:
    """Read the service's own answer; KeyError, TypeError or ValueError when it is none."""
    predictions = tuple(
        Prediction(str(found["label"]), int(found["index"]), float(found["probability"]))
        for found in content["predictions"]
    )
    model = ModelName(str(content["model"]["name"]), str(content["model"]["version"]))
    heatmap = base64.b64decode(content["heatmap"]) if "heatmap" in content else None
    return Answer(_some(predictions), float(content["novelty"]), model, request_id, timings, heatmap)


def read_v2(content: Mapping[str, Any], request_id: str, timings: Mapping[str, float]) -> Answer:
    """Read the tensors of an answer about one image; KeyError, TypeError or ValueError when they are others."""
    tensors = {str(tensor["name"]): tensor["data"] for tensor in content["outputs"]}
    predictions = tuple(
        Prediction(str(label), int(index), float(probability))
        for label, index, probability in zip(tensors["label"], tensors["index"], tensors["probability"], strict=True)
    )
    model = ModelName(str(content["model_name"]), str(content.get("model_version", "")))
    heatmap = base64.b64decode(tensors["heatmap"][0]) if "heatmap" in tensors else None
    return Answer(_some(predictions), float(tensors["novelty"][0]), model, request_id, timings, heatmap)


def read_model(content: Mapping[str, Any]) -> Model:
    """Read one entry of /models, or /models/{name}; KeyError, TypeError or ValueError when it is none."""
    workers = Workers(int(content["workers"]["ready"]), int(content["workers"]["total"]))
    name, version, digest, status = (_text(content[key]) for key in ("name", "version", "digest", "status"))
    return Model(name, version, digest, status, workers, content.get("card"))


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _some(predictions: tuple[Prediction, ...]) -> tuple[Prediction, ...]:
    if not predictions:
        raise ValueError("an answer has at least one prediction")
    return predictions
