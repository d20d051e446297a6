"""Typed results of calls, read from the service's own JSON and from Open Inference V2 tensors."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

from visionserve.client.errors import ResponseError


@dataclass(frozen=True)
class Prediction:
    """A label, its index among the model's labels, and its calibrated probability, 0-1."""

    label: str
    index: int
    probability: float


@dataclass(frozen=True)
class Part:
    """The part of the object where the heatmap is strongest, with its probability, 0-1."""

    name: str
    probability: float


@dataclass(frozen=True)
class ModelName:
    """Which model answered."""

    name: str
    version: str


@dataclass(frozen=True)
class Answer:
    """The service's answer about one image.

    ``novelty`` is 0 (very like the training images) to 1 (unlike all of them); ``timings`` are seconds by stage
    (decode, inference, total), as the service measured them; ``heatmap`` is a grey PNG, if one was requested.
    ``second_look`` is whether the model was unsure and looked at the image twice. ``part`` is in explanations by models
    that know parts.
    """

    predictions: tuple[Prediction, ...]
    novelty: float
    model: ModelName
    request_id: str
    timings: Mapping[str, float] = field(default_factory=dict)
    heatmap: bytes | None = None
    second_look: bool = False
    part: Part | None = None

    @property
    def best(self) -> Prediction:
        """The most probable label."""
        return self.predictions[0]


@dataclass(frozen=True)
class FileResult:
    """The answer about one file of many, or why there is none: an error response, or a file that cannot be read."""

    path: PathLike[str]
    answer: Answer | None = None
    error: ResponseError | OSError | None = None


@dataclass(frozen=True)
class Workers:
    """How many of a model's workers are ready, of how many."""

    ready: int
    total: int


@dataclass(frozen=True)
class Model:
    """A served version of a model; ``card`` is set where a single one was requested.

    ``default`` is whether it answers requests that name no version.
    """

    name: str
    version: str
    digest: str
    status: str
    workers: Workers
    card: Mapping[str, Any] | None = None
    default: bool = True


def read_native(content: Mapping[str, Any], request_id: str, timings: Mapping[str, float]) -> Answer:
    """Read the service's own answer; KeyError, TypeError or ValueError for other JSON."""
    predictions = tuple(
        Prediction(str(entry["label"]), int(entry["index"]), float(entry["probability"]))
        for entry in content["predictions"]
    )
    model = ModelName(str(content["model"]["name"]), str(content["model"]["version"]))
    heatmap = base64.b64decode(content["heatmap"]) if "heatmap" in content else None
    looks = bool(content.get("second_look", False))
    named = content.get("part")
    part = Part(str(named["name"]), float(named["probability"])) if named else None
    return Answer(_not_empty(predictions), float(content["novelty"]), model, request_id, timings, heatmap, looks, part)


def read_v2(content: Mapping[str, Any], request_id: str, timings: Mapping[str, float]) -> Answer:
    """Read an answer about one image from its tensors; KeyError, TypeError or ValueError for other JSON."""
    tensors = {str(tensor["name"]): tensor["data"] for tensor in content["outputs"]}
    predictions = tuple(
        Prediction(str(label), int(index), float(probability))
        for label, index, probability in zip(tensors["label"], tensors["index"], tensors["probability"], strict=True)
    )
    model = ModelName(str(content["model_name"]), str(content.get("model_version", "")))
    heatmap = base64.b64decode(tensors["heatmap"][0]) if "heatmap" in tensors else None
    looks = bool((content.get("parameters") or {}).get("second_look", False))
    part = Part(str(tensors["part"][0]), float(tensors["part_probability"][0])) if "part" in tensors else None
    novelty = float(tensors["novelty"][0])
    return Answer(_not_empty(predictions), novelty, model, request_id, timings, heatmap, looks, part)


def read_model(content: Mapping[str, Any]) -> Model:
    """Read one entry of /models, or /models/{name}; KeyError, TypeError or ValueError for other JSON."""
    workers = Workers(int(content["workers"]["ready"]), int(content["workers"]["total"]))
    name, version, digest, status = (_text(content[key]) for key in ("name", "version", "digest", "status"))
    # Services of before have one version of each model, and do not say so.
    default = bool(content.get("default", True))
    return Model(name, version, digest, status, workers, content.get("card"), default)


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _not_empty(predictions: tuple[Prediction, ...]) -> tuple[Prediction, ...]:
    if not predictions:
        raise ValueError("an answer has at least one prediction")
    return predictions
