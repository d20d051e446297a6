"""Patches of TorchServe's worker: no log lines for every batch, few reads of its socket, no field of a form lost.

They change TorchServe 0.12 from inside its worker process, because it has no settings for them (docs/LOG.md has what
the first two save). A TorchServe that reads its socket in another way stays as it is.
"""

import logging
import os
import socket
import struct
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from ts.metrics.metric_type_enum import MetricTypes
from ts.protocol import otf_message_handler as protocol

# Bytes read at once where a few are wanted: the headers of a request and the start of its image.
AHEAD = 1 << 14
_READER, _REQUEST, _BATCH = "_retrieve_buffer", "_retrieve_request", "_retrieve_inference_msg"
# Without a sign: what is negative, as the end of a list is, becomes longer than any field.
_LENGTH = struct.Struct("!I").unpack_from
_END, _LONGEST = b"\xff\xff\xff\xff", (1 << 31) - 1
# TorchServe's setting; unless it is false, bodies are parsed and decoded.
_DECODE, _NOT_DECODED = "TS_DECODE_INPUT_REQUEST", "false"
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

    It asks for each of some 65 fields of a request by a system call of its own, and each field takes five calls of
    Python. Nothing can be read too much: Java sends the next batch when it has the answer to the last one.
    """
    if not all(hasattr(protocol, name) for name in (_READER, _REQUEST, _BATCH)):
        return False
    reader = Reader()
    setattr(protocol, _READER, reader)
    if os.environ.get(_DECODE) == _NOT_DECODED:
        setattr(protocol, _BATCH, reader.batch)
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
        _number(request["parameters"] if request else ())
        return request

    setattr(protocol, _REQUEST, read_request)
    return True


class Reader:
    """Takes the place of TorchServe's functions that read a socket, or a batch from it; for one connection."""

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

    def batch(self, connection: socket.socket) -> list[dict[str, Any]]:
        """Return the requests of a batch, as TorchServe's `_retrieve_inference_msg` does, but for bodies decoded."""
        requests = []
        while (request := self._request(connection)) is not None:
            requests.append(request)
        return requests

    def _request(self, connection: socket.socket) -> dict[str, Any] | None:
        """Return the next request, None at the end of the batch; TorchServe reads one whose head is not all there."""
        if self._start == self._end:
            self._start, self._end = 0, _at_least_one(connection.recv_into(self._ahead))
        if self._ends():
            return None
        try:
            (request_id, headers, name, content_type), length = self._head()
        except struct.error:
            request: dict[str, Any] | None = getattr(protocol, _REQUEST)(connection)
            return request
        parameters = [{"name": name, "contentType": content_type, "value": self(connection, length)}]
        while not self._ends():
            if (parameter := protocol._retrieve_input_data(connection)) is None:
                break
            parameters.append(parameter)
        _number(parameters)
        return {"requestId": request_id, "headers": headers, "parameters": parameters}

    def _head(self) -> tuple[tuple[bytearray, list[dict[str, bytearray]], str, str], int]:
        """Take what is before the body of a request off the bytes that were read ahead, and the body's length.

        Raises:
            struct.error: it is not all there, or has no body; nothing was taken.
        """
        ahead, start = self._ahead[: self._end], self._start
        (length,) = _LENGTH(ahead, start)
        end = start + 4 + length
        request_id = bytearray(ahead[start + 4 : end])
        headers = []
        while True:
            start = end + 4
            if ahead[end:start] == _END:
                break
            (length,) = _LENGTH(ahead, end)
            end = start + length
            name = bytearray(ahead[start:end])
            (length,) = _LENGTH(ahead, end)
            start, end = end + 4, end + 4 + length
            headers.append({"name": name, "value": bytearray(ahead[start:end])})
        (length,) = _LENGTH(ahead, start)
        start, end = start + 4, start + 4 + length
        parameter = ahead[start:end]
        (length,) = _LENGTH(ahead, end)
        start, end = end + 4, end + 4 + length
        content_type = ahead[start:end]
        (length,) = _LENGTH(ahead, end)
        if length > _LONGEST:
            raise struct.error("not a length")
        self._start = end + 4
        return (request_id, headers, str(parameter, "utf-8"), str(content_type, "utf-8")), length

    def _ends(self) -> bool:
        """Take the end of a list off the bytes that were read ahead; False where it is not there."""
        end = self._start + len(_END)
        ends = end <= self._end and self._ahead[self._start : end] == _END
        self._start = end if ends else self._start
        return ends

    def _receive(self, connection: socket.socket, into: memoryview) -> int:
        """Fill the start of ``into`` and return how much; where little is wanted, keep what comes behind it."""
        if len(into) >= AHEAD:
            return _at_least_one(connection.recv_into(into))
        self._end = _at_least_one(connection.recv_into(self._ahead))
        self._start = min(self._end, len(into))
        into[: self._start] = self._ahead[: self._start]
        return self._start


def _number(parameters: Sequence[dict[str, Any]]) -> None:
    """Rename the fields of a form that repeat a name."""
    if len(parameters) < 2:
        return
    names: Counter[str] = Counter()
    for parameter in parameters:
        name = parameter["name"]
        names[name] += 1
        if names[name] > 1:
            parameter["name"] = f"{name} ({names[name]})"


def _at_least_one(count: int) -> int:
    if count == 0:
        sys.exit(0)
    return count


def _ignore(*_: object) -> None:
    """Drop a metric's value."""
