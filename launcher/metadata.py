"""Metadata: the status server's JSON documents about models, in the native form and in Open Inference V2's."""

from collections.abc import Mapping
from typing import Any

from launcher.workers import Model, WorkerMonitor

Document = dict[str, Any]
NAME, VERSION = "visionserve", "1.0.0"
# As visionserve/responses.py renders a V2 request: n images, k labels for each.
_INPUTS = [{"name": "images", "datatype": "BYTES", "shape": [-1]}]
_OUTPUTS = [
    {"name": "label", "datatype": "BYTES", "shape": [-1, -1]},
    {"name": "probability", "datatype": "FP32", "shape": [-1, -1]},
    {"name": "index", "datatype": "INT64", "shape": [-1, -1]},
    {"name": "novelty", "datatype": "FP32", "shape": [-1]},
]
_HEATMAP = {"name": "heatmap", "datatype": "BYTES", "shape": [-1]}


def list_models(monitor: WorkerMonitor) -> Document:
    """List every version of every model."""
    return {"models": [_summary(monitor, model) for model in monitor.models.values()]}


def describe_model(monitor: WorkerMonitor, model: Model) -> Document:
    """Describe one version of a model, with its card; ``ready`` is what KServe's V1 asks for."""
    return _summary(monitor, model) | {"ready": monitor.status(model) == "ready", "card": model.archive.card}


def server_metadata() -> Document:
    """Return V2's metadata of the server."""
    return {"name": NAME, "version": VERSION, "extensions": ["binary_tensor_data"]}


def model_metadata(monitor: WorkerMonitor, model: Model) -> Document:
    """Return V2's metadata of a model; ``heatmap`` is an output of explanations only, and of models with class maps."""
    versions = [other.archive.version for other in monitor.versions(model.archive.name)]
    names: Mapping[str, Any] = {"name": model.archive.name, "versions": versions}
    outputs = [*_OUTPUTS, _HEATMAP] if model.archive.card.get("heatmap", True) else _OUTPUTS
    return {**names, "platform": "onnx_onnxv1", "inputs": _INPUTS, "outputs": outputs}


def error(code: str, message: str, request_id: str, *, v2: bool = False) -> Document:
    """Return an error in the form of all of the service's errors; V2 wants the sentence alone as "error"."""
    if v2:
        return {"error": message, "code": code, "request_id": request_id}
    return {"error": {"code": code, "message": message}, "request_id": request_id}


def _summary(monitor: WorkerMonitor, model: Model) -> Document:
    archive = model.archive
    workers = {"ready": model.ready, "total": model.total}
    names: Document = {"name": archive.name, "version": archive.version, "digest": archive.digest}
    names["default"] = model.required
    return {**names, "status": monitor.status(model), "workers": workers}
