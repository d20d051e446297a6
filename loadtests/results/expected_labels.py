"""Calibration: each photograph is sent once, alone, before the load starts; its label is what it must get ever after.

A service that answers differently under load (a mixed-up batch, another photograph's answer) is found by this.
"""

import http.client
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loadtests.load.images import Photograph
from loadtests.load.target import Target
from loadtests.results.validation import top_label


class CalibrationError(Exception):
    """The service does not answer a sound photograph; the message says what it did instead."""


@dataclass(frozen=True)
class Calibration:
    """The labels by photograph, and the share of them that is right where the photographs' own labels are known."""

    labels: Mapping[str, str]
    right: float | None


def calibrate(target: Target, photographs: Sequence[Photograph], timeout_s: float = 60) -> Calibration:
    """Send each photograph once, one after the other.

    Raises:
        CalibrationError: one of them got no label.
    """
    found: dict[str, str] = {}
    connect = http.client.HTTPSConnection if target.scheme == "https" else http.client.HTTPConnection
    connection = connect(target.host, target.port, timeout=timeout_s)
    try:
        for photograph in photographs:
            found[photograph.name] = _label(connection, target, photograph)
    except (OSError, http.client.HTTPException) as error:
        raise CalibrationError(f"no answer from {target.url}: {error or type(error).__name__}") from error
    finally:
        connection.close()
    known = [found[photo.name] == photo.label for photo in photographs if photo.label is not None]
    return Calibration(found, sum(known) / len(known) if known else None)


def _label(connection: http.client.HTTPConnection, target: Target, photograph: Photograph) -> str:
    headers = {"Content-Type": "application/octet-stream", **target.headers}
    connection.request("POST", target.path, photograph.body, headers)
    response = connection.getresponse()
    body = response.read()
    label = top_label(body) if response.status == 200 else None
    if label is None:
        said = body[:200].decode("utf-8", "replace")
        raise CalibrationError(f"{photograph.name} got status {response.status} and no label: {said}")
    return label
