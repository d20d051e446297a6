"""Answers: what the classifier says -> the bytes that a client gets, in the protocol of its request.

    plain  {"predictions": [{"label", "index", "probability"}, ...], "novelty", "model": {"name", "version"}}
    v1     {"predictions": [{"predictions": [...], "novelty"}, ...]}, one per instance
    v2     {"model_name", "model_version", "id"?, "outputs": [...]} with label BYTES, probability FP32 and index INT64
           of shape [n, top_k], and novelty FP32 [n]

An explanation adds "heatmap", a grey PNG in base64 for the most probable label, to each (in v2 BYTES [n]);
``format=png`` answers the photograph under its heatmap instead.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from visionserve import heatmap
from visionserve.classifier import Answer
from visionserve.errors import ServiceError
from visionserve.model_card import ModelCard
from visionserve.request_parsing import Request

JSON = "application/json"
PNG = "image/png"
# Six decimals: finer than any calibration, and short to send.
_DECIMALS = 6


@dataclass(frozen=True)
class Content:
    """A body and its type."""

    body: bytes
    type: str = JSON


def render(request: Request, images: Sequence[np.ndarray], answers: Sequence[Answer], card: ModelCard) -> Content:
    """Return the answer to a request; ``images`` are the prepared ones (S, S, 3), ``answers`` one for each."""
    if request.format == "png":
        return Content(heatmap.overlay_png(images[0], answers[0].class_map(_best(answers[0]))), PNG)
    if request.protocol == "v2":
        return _json(_v2(request, answers, card))
    entries = [_entry(request, answer, card) for answer in answers]
    if request.protocol == "v1":
        return _json({"predictions": entries})
    return _json(entries[0] | {"model": {"name": card.name, "version": card.version}})


def refuse(error: ServiceError, request_id: str, *, v2: bool = False) -> Content:
    """Return the answer that carries an error; in Open Inference V2, "error" is the sentence alone."""
    if v2:
        return _json({"error": error.message, "code": error.code, "request_id": request_id})
    return _json({"error": error.body(), "request_id": request_id})


def _entry(request: Request, answer: Answer, card: ModelCard) -> dict[str, Any]:
    predictions = [
        {"label": found.label, "index": found.index, "probability": round(found.probability, _DECIMALS)}
        for found in answer.top(request.top_k)
    ]
    entry: dict[str, Any] = {"predictions": predictions, "novelty": round(answer.novelty, _DECIMALS)}
    return entry | {"heatmap": _heatmap(answer, card)} if request.explain else entry


def _v2(request: Request, answers: Sequence[Answer], card: ModelCard) -> dict[str, Any]:
    found = [prediction for answer in answers for prediction in answer.top(request.top_k)]
    count, shape = len(answers), [len(answers), request.top_k]
    outputs = [
        _tensor("label", "BYTES", shape, [prediction.label for prediction in found]),
        _tensor("probability", "FP32", shape, [round(prediction.probability, _DECIMALS) for prediction in found]),
        _tensor("index", "INT64", shape, [prediction.index for prediction in found]),
        _tensor("novelty", "FP32", [count], [round(answer.novelty, _DECIMALS) for answer in answers]),
    ]
    if request.explain:
        outputs.append(_tensor("heatmap", "BYTES", [count], [_heatmap(answer, card) for answer in answers]))
    names = {"model_name": card.name, "model_version": card.version}
    return names | ({"id": request.id} if request.id is not None else {}) | {"outputs": outputs}


def _tensor(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def _heatmap(answer: Answer, card: ModelCard) -> str:
    return base64.b64encode(heatmap.grey_png(answer.class_map(_best(answer)), card.input.size)).decode()


def _best(answer: Answer) -> int:
    return answer.top(1)[0].index


def _json(content: dict[str, Any]) -> Content:
    # ASCII only: an id that a client sent may hold code points that UTF-8 cannot carry.
    return Content(json.dumps(content, separators=(",", ":")).encode())
