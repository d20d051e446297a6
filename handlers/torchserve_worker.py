"""Patches of TorchServe's worker: no log lines for every batch, few reads of its socket, no field of a form lost.

They change TorchServe 0.12 from inside its worker process, because it has no settings for them (docs/LOG.md has what
the first two save). A TorchServe that reads its socket in another way stays as it is.
"""

import logging
import socket
import sys
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from ts.metrics.metric_type_enum import MetricTypes
from ts.protocol import otf_message_handler as protocol

# Bytes read at once where a few are wanted: the headers of a request and the start of its image.
AHEAD = 1 << 14
_READER, _REQUEST = "_retrieve_buffer", "_retrieve_request"
_METRIC_LINES = "ts.metrics.caching_metric"


def be_quiet(metrics: Any) -> None:
    """Stop the two lines that the worker prints for each batch: its Java reads, parses and drops them.

    One is a log line, the other the metric PredictionTime, which metrics.yaml does not declare. Warnings stay, and so
    do the metrics that are declared, which travel as lines of information.
    """
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger(_METRIC_LINES).setLevel(logging.INFO)
    metrics.cache.setdefault(MetricTypes.GAUGE, {})["PredictionTime"] = SimpleNamespace(add_or_update=_ignore)


def read_ahead() -> bool:
    """Let the worker read its socket in large pieces; False where this TorchServe has no such reader.

    It asks for each of some 65 fields of a request by a system call of its own. Nothing can be read too much: Java
    sends the next batch when it has the answer to the last one.
    """
    if not hasattr(protocol, _READER):
        return False
    setattr(protocol, _READER, Reader())
    return True


def keep_repeated_fields() -> bool:
    """Rename fields of a form that repeat a name; False where this TorchServe reads requests in another way.

    TorchServe makes a dictionary of them, so of two files that are both called "file" it would answer the last alone.
    """
    read: Callable[[socket.socket], dict[str, Any] | None] | None = getattr(protocol, _REQUEST, None)
    if read is None:
        return False

    def read_request(connection: socket.socket) -> dict[str, Any] | None:
        request = read(connection)
        names: Counter[str] = Counter()
        for parameter in (request or {}).get("parameters", ()):
            name = parameter["name"]
            names[name] += 1
            if names[name] > 1:
                parameter["name"] = f"{name} ({names[name]})"
        return request

    setattr(protocol, _REQUEST, read_request)
    return True


class Reader:
    """Takes the place of TorchServe's function that reads so many bytes of a socket; for one connection."""

    def __init__(self) -> None:
        self._ahead = memoryview(bytearray(AHEAD))
        self._start = self._end = 0

    def __call__(self, connection: socket.socket, length: int) -> bytearray:
        """Return the next ``length`` bytes; ends the process when the connection ends, as TorchServe's does."""
        start, end = self._start, self._start + length
        if end <= self._end:
            self._start = end
            return bytearray(self._ahead[start:end])
        received = bytearray(length)
        view = memoryview(received)
        filled = self._end - start
        view[:filled] = self._ahead[start : self._end]
        self._start = self._end = 0
        while filled < length:
            filled += self._receive(connection, view[filled:])
        return received

    def _receive(self, connection: socket.socket, into: memoryview) -> int:
        """Fill the start of ``into`` and return how much; where little is wanted, keep what comes behind it."""
        if len(into) >= AHEAD:
            return _at_least_one(connection.recv_into(into))
        self._end = _at_least_one(connection.recv_into(self._ahead))
        self._start = min(self._end, len(into))
        into[: self._start] = self._ahead[: self._start]
        return self._start


def _at_least_one(count: int) -> int:
    if count == 0:
        sys.exit(0)
    return count


def _ignore(*_: object) -> None:
    """Drop a metric's value."""
