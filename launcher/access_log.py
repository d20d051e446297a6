"""Access log: receives the gateway's records, one UDP datagram in syslog's form per request, and counts them.

<190>Nov 21 09:00:00 gateway: {"route": "predictions", "status": 200, "duration_s": 0.0123, "upstream_s": "0.011", ...}
"""

import contextlib
import json
import math
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from launcher.settings import HOST, SetupError

ROUTES = ("predictions", "explanations", "models", "docs", "health", "ui", "other")
_TOTAL = re.compile(r"\btotal;dur=(\d+(?:\.\d+)?)")
# Bursts wait here instead of being dropped by the kernel.
_BUFFER_BYTES = 1 << 20
_DATAGRAM_BYTES = 1 << 16
_MOST_PLACES = 1 << 20


class MalformedRecord(Exception):
    """A datagram is not a record of the gateway."""


@dataclass(frozen=True)
class Record:
    """A request as the gateway saw it.

    ``queue_s`` is what TorchServe's front end and queue took, ``places`` how many requests the gateway lets in at once;
    None when unknown.
    """

    route: str
    status: int
    duration_s: float
    queue_s: float | None
    places: int | None = None


class RecordCounter(Protocol):
    """Counts records."""

    def count(self, record: Record) -> None: ...  # noqa: D102
    def count_malformed(self) -> None: ...  # noqa: D102


def parse(datagram: bytes) -> Record:
    """Return the record in a datagram; raises MalformedRecord."""
    start = datagram.find(b"{")
    try:
        content = json.loads(datagram[start:])
        route, status = str(content["route"]), int(content["status"])
        duration_s = float(content["duration_s"])
        places = None if content.get("places") is None else int(content["places"])
        upstream, timing = str(content.get("upstream_s", "")), str(content.get("timing", ""))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise MalformedRecord(str(error)) from error
    if start < 0 or not 100 <= status <= 599 or not 0 <= duration_s < math.inf or not 0 <= (places or 0) < _MOST_PLACES:
        raise MalformedRecord("a number is out of range")
    return Record(route if route in ROUTES else "other", status, duration_s, _queue_s(upstream, timing), places)


def _queue_s(upstream: str, timing: str) -> float | None:
    """Return what the upstream took beyond the handler's own total; nginx lists every attempt, the last one counts."""
    attempts = re.findall(r"\d+(?:\.\d+)?", upstream)
    total = _TOTAL.search(timing)
    return max(0.0, float(attempts[-1]) - float(total[1]) / 1000) if attempts and total else None


@contextlib.contextmanager
def listen(port: int, counter: RecordCounter) -> Iterator[None]:
    """Count the records that arrive at a port of this machine; 0 is off."""
    if port == 0:
        yield
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        try:
            receiver.bind((HOST, port))
        except OSError as error:
            raise SetupError(
                f"Port {port} is not free ({error.strerror}): stop what listens there or choose another with "
                "--access-port (0 for none)."
            ) from error
        stopped = threading.Event()
        thread = threading.Thread(target=_receive, args=(receiver, counter, stopped), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            receiver.sendto(b"", (HOST, port))
            thread.join()


def _receive(receiver: socket.socket, counter: RecordCounter, stopped: threading.Event) -> None:
    while True:
        datagram = receiver.recv(_DATAGRAM_BYTES)
        if stopped.is_set():
            return
        try:
            counter.count(parse(datagram))
        except MalformedRecord:
            counter.count_malformed()
