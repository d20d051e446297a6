"""The client: sends photographs to a running service and makes its answers readable."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any

import requests

from launcher.settings import SetupError

_BAR = 30
_TIMEOUT_S = 60


@dataclass(frozen=True)
class ResponseError(Exception):
    """The service answered, but not with a prediction."""

    status: int
    message: str


def dahlia() -> Path:
    """Return scikit-learn's photograph of a dahlia, which no data set of flowers holds.

    It is found without importing the package, which would take seconds.
    """
    found = util.find_spec("sklearn")
    if found is None or found.origin is None:
        raise SetupError("scikit-learn, which brings the photograph, is not installed: name a FILE instead.")
    return Path(found.origin).parent / "datasets" / "images" / "flower.jpg"


def predict(url: str, model: str, photograph: bytes, top_k: int, timeout_s: float = _TIMEOUT_S) -> Mapping[str, Any]:
    """Send one photograph and return the answer.

    Raises:
        ResponseError: the service answered with an error.
        requests.RequestException: it did not answer.
    """
    answer = requests.put(
        f"{url}/predictions/{model}", data=photograph, headers={"x-top-k": str(top_k)}, timeout=timeout_s
    )
    if answer.status_code != requests.codes.ok:
        raise ResponseError(answer.status_code, _message(answer))
    content: Mapping[str, Any] = answer.json()
    return content


def table(title: str, answer: Mapping[str, Any]) -> str:
    """Return an answer as lines: a label, its probability and a bar for each prediction, then the novelty."""
    width = max(len(entry["label"]) for entry in answer["predictions"])
    rows = [_row(entry, width) for entry in answer["predictions"]]
    novelty = f"  novelty {answer['novelty']:.2f}  (0 very like the training photographs, 1 unlike all of them)"
    return "\n".join([title, *rows, novelty])


def _row(entry: Mapping[str, Any], width: int) -> str:
    bar = "█" * round(entry["probability"] * _BAR)
    return f"  {entry['label']:<{width}}  {entry['probability']:7.2%}  {bar}".rstrip()


def _message(answer: requests.Response) -> str:
    try:
        content = answer.json()
    except requests.JSONDecodeError:
        return answer.reason or "no reason given"
    error = content.get("error", content)
    return f"{error.get('message', 'no reason given')} ({error.get('code', answer.status_code)})"
