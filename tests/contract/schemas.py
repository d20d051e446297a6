"""JSON Schemas of everything that the service answers; a client may rely on no more and no less."""

from typing import Any

Schema = dict[str, Any]


def _object(properties: Schema, optional: tuple[str, ...] = ()) -> Schema:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


TEXT: Schema = {"type": "string", "minLength": 1}
SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
PREDICTION = _object({"label": TEXT, "index": {"type": "integer", "minimum": 0}, "probability": SHARE})
PREDICTIONS: Schema = {"type": "array", "items": PREDICTION, "minItems": 1}
PLAIN = _object(
    {
        "predictions": PREDICTIONS,
        "novelty": SHARE,
        "heatmap": TEXT,
        "model": _object({"name": TEXT, "version": TEXT}),
    },
    optional=("heatmap",),
)
V1 = _object(
    {
        "predictions": {
            "type": "array",
            "items": _object({"predictions": PREDICTIONS, "novelty": SHARE, "heatmap": TEXT}, optional=("heatmap",)),
        }
    }
)
TENSOR = _object(
    {
        "name": {"enum": ["label", "probability", "index", "novelty", "heatmap"]},
        "datatype": {"enum": ["BYTES", "FP32", "INT64"]},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}},
        "data": {"type": "array", "minItems": 1},
    }
)
V2 = _object(
    {"model_name": TEXT, "model_version": TEXT, "id": TEXT, "outputs": {"type": "array", "items": TENSOR}},
    optional=("id",),
)
CODES = [
    *["empty_body", "corrupt_image", "invalid_request", "image_too_large", "unsupported_image", "invalid_parameter"],
    *["overloaded", "internal_error", "unavailable", "deadline_exceeded"],
]
ERROR = _object({"error": _object({"code": {"enum": CODES}, "message": TEXT}), "request_id": TEXT})
