"""GrpcClient: predictions over TorchServe's gRPC, as it is used inside a cluster. Needs grpcio only.

Of TorchServe's inference.proto two small messages are used. They are encoded here, not by generated stubs: stubs need
protobuf at run time, in a version that often clashes with what a user's program has already:

    PredictionsRequest  { string model_name = 1; string model_version = 2; map<string, bytes> input = 3; }
    PredictionResponse  { bytes prediction = 1; }

An error of the handler is in the body, with the same code as over HTTP, and the status is OK. TorchServe's own errors
are statuses with the name of a Java class behind their text: INTERNAL for an unknown model and for a worker that died.
"""

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

from visionserve.client.errors import ResponseError, ServiceUnreachable
from visionserve.client.http_messages import Image, content
from visionserve.client.results import Answer, read_native
from visionserve.client.retry import RETRIED, WORKER_FAILURES, Attempts, Retries

_METHOD = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
_LENGTH_DELIMITED = 2
# gRPC statuses of errors that HTTP has too. TorchServe cancels a message that is over its limit.
_STATUSES = {
    "NOT_FOUND": (404, "not_found"),
    "RESOURCE_EXHAUSTED": (413, "image_too_large"),
    "CANCELLED": (413, "image_too_large"),
}
# Behind the text of TorchServe's own errors: its queue is full, or no worker is there.
_TORCHSERVES = "org.pytorch.serve"
# TorchServe's own limit, config.properties.
_MAX_BYTES = 16 << 20


class GrpcClient:
    """Calls TorchServe over gRPC.

    with GrpcClient("127.0.0.1:7070") as client:
        answer = client.predict(Path("photo.jpg"), "flowers")
    """

    def __init__(
        self,
        address: str,
        timeout_s: float = 30,
        retries: Retries = Retries(),  # noqa: B008 - frozen
    ) -> None:
        """Create a client; sends nothing yet. ImportError if grpcio is not installed.

        Args:
            timeout_s: how long a call may take altogether, its retries included.
        """
        try:
            import grpc
        except ImportError as error:
            raise ImportError("GrpcClient needs grpcio: pip install grpcio.") from error

        self._grpc: Any = grpc
        self.address = address
        self.timeout_s = timeout_s
        self.retries = retries
        limits = [("grpc.max_send_message_length", _MAX_BYTES), ("grpc.max_receive_message_length", _MAX_BYTES)]
        self._channel: Any = grpc.insecure_channel(address, options=limits)
        # The messages are bytes already.
        self._predictions: Any = self._channel.unary_unary(_METHOD)

    def predict(self, image: Image, model: str, top_k: int | None = None, *, version: str | None = None) -> Answer:
        """Classify an image; ResponseError and ServiceUnreachable as with Client."""
        options = {} if top_k is None else {"top_k": str(top_k).encode()}
        request = _request(model, version or "", {"data": content(image), **options})
        request_id = uuid.uuid4().hex
        attempts, worker_failures = Attempts(self.retries, self.timeout_s), 0
        while True:
            try:
                return self._send(request, request_id, attempts.remaining_s)
            except (ResponseError, ServiceUnreachable) as failure:
                if isinstance(failure, WorkerDied):
                    worker_failures += 1
                again = _may_help(failure) and worker_failures <= WORKER_FAILURES
                pause = attempts.pause_s() if again else None
                if pause is None:
                    raise
            time.sleep(pause)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def __enter__(self) -> "GrpcClient":
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _send(self, request: bytes, request_id: str, timeout_s: float) -> Answer:
        try:
            answer = self._predictions(request, timeout=timeout_s, metadata=[("x-request-id", request_id)])
        except self._grpc.RpcError as error:
            raise self._failure(error.code().name, str(error.details()), request_id) from error
        return self._read(answer, request_id)

    def _failure(self, code: str, text: str, request_id: str) -> ResponseError | ServiceUnreachable:
        details = text.partition("\n")[0]  # the rest is names of Java classes
        if code == "INTERNAL" and "not found" in details.lower():  # TorchServe's answer for an unknown model
            return ResponseError(404, "not_found", details, request_id)
        if _TORCHSERVES in text and code in ("INTERNAL", "UNAVAILABLE", "UNKNOWN"):
            return WorkerDied(503, "unavailable", details, request_id)
        if code in _STATUSES:
            return ResponseError(*_STATUSES[code], details, request_id)
        if code == "DEADLINE_EXCEEDED":
            return ServiceUnreachable(self.address, f"no answer within {self.timeout_s:g} s", "timeout")
        if code in ("UNAVAILABLE", "UNIMPLEMENTED"):
            return ServiceUnreachable(self.address, code.lower(), "connection" if code == "UNAVAILABLE" else "address")
        return ResponseError(500, "internal_error", details, request_id)

    def _read(self, message: bytes, request_id: str) -> Answer:
        try:
            body = json.loads(b"".join(value for number, value in _fields(message) if number == 1))
            if "error" in body:
                error = body["error"]
                raise ResponseError(_status(error["code"]), error["code"], error["message"], body["request_id"])
            return read_native(body, request_id, {})
        except (KeyError, TypeError, ValueError):
            raise ServiceUnreachable(
                self.address, "its response is not visionserve's; check the address", "address"
            ) from None


class WorkerDied(ResponseError):
    """TorchServe itself reports that a worker died or could not answer: another one may."""


def _may_help(failure: ResponseError | ServiceUnreachable) -> bool:
    """Return whether to send the request again."""
    if isinstance(failure, ServiceUnreachable):
        return failure.cause == "connection"
    return failure.status in RETRIED


def _status(code: str) -> int:
    from visionserve import errors

    statuses = {error.code: error.status for error in errors.ServiceError.__subclasses__()}
    return statuses.get(code, 500)


def _request(model: str, version: str, inputs: dict[str, bytes]) -> bytes:
    entries = [_field(3, _field(1, name.encode()) + _field(2, value)) for name, value in inputs.items()]
    return _field(1, model.encode()) + _field(2, version.encode()) + b"".join(entries)


def _field(number: int, value: bytes) -> bytes:
    """Return a field of bytes; protobuf leaves out what is empty."""
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(value)) + value if value else b""


def _varint(number: int) -> bytes:
    """Return a number in groups of seven bits, least first; all but the last have their highest bit set."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield a message's fields of bytes by number; ValueError at anything else."""
    offset = 0
    while offset < len(message):
        key, offset = _number(message, offset)
        length, offset = _number(message, offset)
        if key & 7 != _LENGTH_DELIMITED or offset + length > len(message):
            raise ValueError("not a message of this service")
        yield key >> 3, message[offset : offset + length]
        offset += length


def _number(message: bytes, offset: int) -> tuple[int, int]:
    """Return the varint at an offset, and the offset behind it."""
    number = shift = 0
    while offset < len(message):
        byte = message[offset]
        number, shift, offset = number | (byte & 0x7F) << shift, shift + 7, offset + 1
        if byte < 0x80:
            return number, offset
    raise ValueError("a number is cut off")
