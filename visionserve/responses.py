"""Responses: classifications -> the bytes that a client gets, in the protocol of its request.

    plain  {"predictions": [{"label", "index", "probability"}, ...], "novelty", "model": {"name", "version"}}
    v1     {"predictions": [{"predictions": [...], "novelty"}, ...]}, one per instance
    v2     {"model_name", "model_version", "id"?, "outputs": [...]} with label BYTES, probability FP32 and index INT64
           of shape [n, top_k], and novelty FP32 [n]

An explanation adds "heatmap", a grey PNG in base64 for the most probable label, to each (in v2 BYTES [n]);
``format=png`` answers the image under its heatmap instead. A model without class maps has neither: a ``note`` says so
(in v2 among ``parameters``). Where the card has a second look, ``"second_look": true`` marks the images that had one
(in v2 their number, among ``parameters``). An explanation by a model that knows parts has ``"part": {"name",
"probability"}`` of the place where the heatmap has its maximum (in v2 ``part`` BYTES and ``part_probability`` FP32, [n]
each).
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from visionserve import heatmap
from visionserve.classifier import Classification
from visionserve.errors import InvalidParameter, ServiceError
from visionserve.model_card import ModelCard
from visionserve.request_parsing import Request

JSON = "application/json"
PNG = "image/png"
# ASCII only: an id that a client sent may hold code points that UTF-8 cannot carry.
_ENCODER = json.JSONEncoder(separators=(",", ":"))
# Six decimals: finer than any calibration, and short to send.
_DECIMALS = 6


@dataclass(frozen=True)
class Content:
    """A body and its type."""

    body: bytes
    type: str = JSON


def render(
    request: Request, images: Sequence[np.ndarray], classifications: Sequence[Classification], card: ModelCard
) -> Content:
    """Return the response; ``images`` are the prepared ones (S, S, 3), with one classification each."""
    if request.format == "png" and not card.heatmap:
        raise InvalidParameter(f"{_no_heatmap(card)} Ask for JSON, or for a prediction.")
    if request.format == "png":
        return Content(heatmap.overlay_png(images[0], classifications[0].class_map(classifications[0].best)), PNG)
    if request.protocol == "v2":
        return _json(_v2(request, classifications, card))
    entries = [_entry(request, classification, card) for classification in classifications]
    if request.protocol == "v1":
        return _json({"predictions": entries})
    return _json(entries[0] | {"model": {"name": card.name, "version": card.version}})


def error_response(error: ServiceError, request_id: str, *, v2: bool = False) -> Content:
    """Return the response for an error; in Open Inference V2, "error" is the message alone."""
    if v2:
        return _json({"error": error.message, "code": error.code, "request_id": request_id})
    return _json({"error": error.body(), "request_id": request_id})


def _entry(request: Request, classification: Classification, card: ModelCard) -> dict[str, Any]:
    predictions = [
        {"label": top.label, "index": top.index, "probability": round(top.probability, _DECIMALS)}
        for top in classification.top(request.top_k)
    ]
    entry: dict[str, Any] = {"predictions": predictions, "novelty": round(classification.novelty, _DECIMALS)}
    if classification.second_look:
        entry["second_look"] = True
    if not request.explain:
        return entry
    if part := classification.part(card):
        entry["part"] = {"name": part.name, "probability": round(part.probability, _DECIMALS)}
    return entry | ({"heatmap": _heatmap(classification, card)} if card.heatmap else {"note": _no_heatmap(card)})


def _no_heatmap(card: ModelCard) -> str:
    return f"{card.name} has no heatmaps: {card.architecture} has no class maps."


def _v2(request: Request, classifications: Sequence[Classification], card: ModelCard) -> dict[str, Any]:
    predictions = [prediction for classification in classifications for prediction in classification.top(request.top_k)]
    count, shape = len(classifications), [len(classifications), request.top_k]
    novelties = [round(classification.novelty, _DECIMALS) for classification in classifications]
    outputs = [
        _tensor("label", "BYTES", shape, [prediction.label for prediction in predictions]),
        _tensor("probability", "FP32", shape, [round(prediction.probability, _DECIMALS) for prediction in predictions]),
        _tensor("index", "INT64", shape, [prediction.index for prediction in predictions]),
        _tensor("novelty", "FP32", [count], novelties),
    ]
    if request.explain and card.heatmap:
        heatmaps = [_heatmap(classification, card) for classification in classifications]
        outputs.append(_tensor("heatmap", "BYTES", [count], heatmaps))
    parts = [part for classification in classifications if request.explain and (part := classification.part(card))]
    if parts:
        outputs.append(_tensor("part", "BYTES", [count], [part.name for part in parts]))
        probabilities = [round(part.probability, _DECIMALS) for part in parts]
        outputs.append(_tensor("part_probability", "FP32", [count], probabilities))
    names: dict[str, Any] = {"model_name": card.name, "model_version": card.version}
    if request.explain and not card.heatmap:
        names["parameters"] = {"note": _no_heatmap(card)}
    if card.second_look is not None:
        names["parameters"] = {"second_look": sum(classification.second_look for classification in classifications)}
    return names | ({"id": request.id} if request.id is not None else {}) | {"outputs": outputs}


def _tensor(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def _heatmap(classification: Classification, card: ModelCard) -> str:
    return base64.b64encode(heatmap.grey_png(classification.class_map(classification.best), card.input.size)).decode()


def _json(content: dict[str, Any]) -> Content:
    return Content(_ENCODER.encode(content).encode())
