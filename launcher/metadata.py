"""Documents: what the status server says of models, in our own form and in Open Inference's (V2)."""

from collections.abc import Mapping
from typing import Any

from launcher.workers import Model, Watch

Document = dict[str, Any]
NAME, VERSION = "visionserve", "1.0.0"
# As visionserve/responses.py renders a V2 request: n images, k labels for each.
_INPUTS = [{"name": "images", "datatype": "BYTES", "shape": [-1]}]
_OUTPUTS = [
    {"name": "label", "datatype": "BYTES", "shape": [-1, -1]},
    {"name": "probability", "datatype": "FP32", "shape": [-1, -1]},
    {"name": "index", "datatype": "INT64", "shape": [-1, -1]},
    {"name": "novelty", "datatype": "FP32", "shape": [-1]},
    {"name": "heatmap", "datatype": "BYTES", "shape": [-1]},
]


def models(watch: Watch) -> Document:
    """List the models."""
    return {"models": [_summary(watch, model) for model in watch.models.values()]}


def model(watch: Watch, found: Model) -> Document:
    """Describe one model, with its card."""
    return _summary(watch, found) | {"card": found.archive.card}


def server() -> Document:
    """Return V2's metadata of the server."""
    return {"name": NAME, "version": VERSION, "extensions": ["binary_tensor_data"]}


def metadata(found: Model) -> Document:
    """Return V2's metadata of a model; ``heatmap`` is an output of explanations only."""
    names: Mapping[str, Any] = {"name": found.archive.name, "versions": [found.archive.version]}
    return {**names, "platform": "onnx_onnxv1", "inputs": _INPUTS, "outputs": _OUTPUTS}


def error(code: str, message: str, request_id: str, *, v2: bool = False) -> Document:
    """Return an error in the form that all of the service's errors have; V2 wants the sentence alone as "error"."""
    if v2:
        return {"error": message, "code": code, "request_id": request_id}
    return {"error": {"code": code, "message": message}, "request_id": request_id}


def _summary(watch: Watch, found: Model) -> Document:
    archive = found.archive
    workers = {"ready": found.ready, "total": found.total}
    names = {"name": archive.name, "version": archive.version, "digest": archive.digest}
    return {**names, "status": watch.status(found), "workers": workers}
