"""Validation: status, headers and body of a response -> what became of the request.

The label that each image gets alone, before the load starts, is the one that it must get ever after: a service that
mixes up a batch, or answers with another image's label, is detected by this.
"""

import http.client
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from loadtests.load.http_client import Target
from loadtests.load.images import EncodedImage
from loadtests.load.workload import Item

Kind = Literal["ok", "rejected", "wrong", "failed", "unanswered"]
_CLIENT_ERRORS = range(400, 500)
# A client error by number, but one that the service's load or time limits cause, not a invalid body.
_OF_LOAD = (408, 429)


@dataclass(frozen=True)
class Outcome:
    """What became of a request.

    ``ok``: the expected label. ``rejected``: an invalid body got a 4xx, as it must. ``wrong``: 200 with another label.
    ``unanswered``: the run was interrupted before. ``failed``: everything else. ``reason`` says what; ``timings`` are
    Server-Timing's, in ms.
    """

    kind: Kind
    reason: str = ""
    timings: Mapping[str, float] = field(default_factory=dict)


def judge(item: Item, status: int, body: bytes, server_timing: str = "") -> Outcome:
    """Return what became of a request that got a response."""
    if item.invalid:
        rejected = status in _CLIENT_ERRORS and status not in _OF_LOAD
        return Outcome("rejected") if rejected else Outcome("failed", f"invalid body ({item.name}) got {status}")
    if status != 200:
        return Outcome("failed", f"status {status}{_code(body)}")
    label = top_label(body)
    timings = parse_timing(server_timing)
    if label is None:
        return Outcome("failed", "a response without a label", timings)
    if item.expected is not None and label != item.expected:
        return Outcome("wrong", f"{item.name}: {label} instead of {item.expected}", timings)
    return Outcome("ok", timings=timings)


def top_label(body: bytes) -> str | None:
    """Return the first label of a response; None where there is none.

    Both forms are read: ``{"predictions": [{"label": ...}, ...]}`` and that of TorchServe's own image_classifier,
    ``{"label": probability, ...}``.
    """
    try:
        content = json.loads(body)
    except ValueError:
        return None
    if not isinstance(content, dict):
        return None
    predictions = content.get("predictions")
    if isinstance(predictions, list) and predictions and isinstance(predictions[0], dict):
        label = predictions[0].get("label")
        return str(label) if label is not None else None
    return _best(content)


def parse_timing(header: str) -> dict[str, float]:
    """Return the durations in ms of a Server-Timing header by name; what cannot be read is left out."""
    timings = {}
    for entry in header.split(","):
        name, _, rest = entry.partition(";")
        for parameter in rest.split(";"):
            key, _, value = parameter.strip().partition("=")
            if key == "dur":
                try:
                    timings[name.strip()] = float(value)
                except ValueError:
                    continue
    return timings


class CalibrationError(Exception):
    """The service gives no label for a valid image; the message says what it did instead."""


@dataclass(frozen=True)
class Calibration:
    """``labels`` by image name; ``accuracy`` is the share that is correct, 0-1, None where no true label is known."""

    labels: Mapping[str, str]
    accuracy: float | None


def calibrate(target: Target, images: Sequence[EncodedImage], timeout_s: float = 60) -> Calibration:
    """Send each image once, one after the other.

    Raises:
        CalibrationError: one of them got no label.
    """
    labels: dict[str, str] = {}
    connect = http.client.HTTPSConnection if target.scheme == "https" else http.client.HTTPConnection
    connection = connect(target.host, target.port, timeout=timeout_s)
    try:
        for image in images:
            labels[image.name] = _label(connection, target, image)
    except (OSError, http.client.HTTPException) as error:
        raise CalibrationError(f"no answer from {target.url}: {error or type(error).__name__}") from error
    finally:
        connection.close()
    correct = [labels[image.name] == image.label for image in images if image.label is not None]
    return Calibration(labels, sum(correct) / len(correct) if correct else None)


def _best(content: dict[str, Any]) -> str | None:
    scores = {label: value for label, value in content.items() if isinstance(value, float)}
    return max(scores, key=scores.__getitem__) if scores else None


def _code(body: bytes) -> str:
    try:
        code = json.loads(body)["error"]["code"]
    except (ValueError, KeyError, TypeError):
        return ""
    return f" {code}"


def _label(connection: http.client.HTTPConnection, target: Target, image: EncodedImage) -> str:
    headers = {"Content-Type": "application/octet-stream", **target.headers}
    connection.request("POST", target.path, image.body, headers)
    response = connection.getresponse()
    body = response.read()
    label = top_label(body) if response.status == 200 else None
    if label is None:
        text = body[:200].decode("utf-8", "replace")
        raise CalibrationError(f"{image.name} got status {response.status} and no label: {text}")
    return label
