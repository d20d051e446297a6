"""Answers: status, headers and body of a reply -> what became of the request.

An answer counts only if its label is the one that the same photograph got before the load started.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from loadtests.load.workload import Item

Kind = Literal["ok", "refused", "wrong", "failed"]
_REFUSALS = range(400, 500)
# A client error by number, but one that the service's load or time limits cause, not a broken body.
_OF_LOAD = (408, 429)


@dataclass(frozen=True)
class Verdict:
    """What became of a request.

    ``ok``: the expected label. ``refused``: a deliberately broken body got a 4xx, as it must. ``wrong``: 200 with
    another label. ``failed``: everything else; ``reason`` says what. ``timings`` are Server-Timing's, in ms.
    """

    kind: Kind
    reason: str = ""
    timings: Mapping[str, float] = field(default_factory=dict)


def judge(item: Item, status: int, body: bytes, server_timing: str = "") -> Verdict:
    """Say what became of a request that got an answer."""
    if item.broken:
        refused = status in _REFUSALS and status not in _OF_LOAD
        return Verdict("refused") if refused else Verdict("failed", f"broken body ({item.name}) got {status}")
    if status != 200:
        return Verdict("failed", f"status {status}{_code(body)}")
    label = top_label(body)
    timings = parse_timing(server_timing)
    if label is None:
        return Verdict("failed", "an answer without a label", timings)
    if item.expected is not None and label != item.expected:
        return Verdict("wrong", f"{item.name}: {label} instead of {item.expected}", timings)
    return Verdict("ok", timings=timings)


def top_label(body: bytes) -> str | None:
    """Return the first label of an answer; None where there is none.

    Read are ``{"predictions": [{"label": ...}, ...]}`` and what TorchServe's own image_classifier answers,
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


def _best(content: dict[str, Any]) -> str | None:
    scores = {label: value for label, value in content.items() if isinstance(value, float)}
    return max(scores, key=scores.__getitem__) if scores else None


def _code(body: bytes) -> str:
    try:
        code = json.loads(body)["error"]["code"]
    except (ValueError, KeyError, TypeError):
        return ""
    return f" {code}"
