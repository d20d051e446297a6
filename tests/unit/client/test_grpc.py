"""GrpcClient against a gRPC server that answers as TorchServe does."""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from tests.unit.client.fake_service import ANSWER
from visionserve.client import GrpcClient, ResponseError, Retries, ServiceUnreachable

JAVA = "\norg.pytorch.serve.http.InternalServerException"
WORKER_DIED = (grpc.StatusCode.INTERNAL, "Worker died." + JAVA)
NO_WORKER = (grpc.StatusCode.UNAVAILABLE, 'Model "flowers" has no worker to serve inference request.' + JAVA)
UNKNOWN = (grpc.StatusCode.INTERNAL, "Model not found: roses" + JAVA.replace("http", "archive"))
QUICK = Retries(4, 0.001)

Step = tuple[grpc.StatusCode, str] | Mapping[str, object]


class Server:
    """Takes one step of its script for each call, the last one for ever."""

    def __init__(self, *steps: Step) -> None:
        self.calls = 0
        self._steps = list(steps)

    def service(self, _details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(self._answer)

    def _answer(self, _request: bytes, context: grpc.ServicerContext) -> bytes:
        self.calls += 1
        step = self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]
        if isinstance(step, tuple):
            context.abort(*step)
        body = json.dumps(step).encode()
        return b"\x0a" + bytes([len(body) & 0x7F | 0x80, len(body) >> 7]) + body


@contextlib.contextmanager
def listening(*steps: Step) -> Iterator[tuple[str, Server]]:
    script = Server(*steps)
    server = grpc.server(ThreadPoolExecutor(2), handlers=[script])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", script
    finally:
        server.stop(None).wait(10)


@pytest.mark.parametrize("failure", [WORKER_DIED, NO_WORKER])
def test_a_request_whose_worker_died_is_sent_again(failure: Step) -> None:
    with listening(failure, ANSWER) as (address, server), GrpcClient(address, retries=QUICK) as client:
        assert client.predict(b"image", "flowers").best.label == "rose"
    assert server.calls == 2


def test_it_is_sent_again_so_often_and_no_more() -> None:
    with (
        listening(WORKER_DIED) as (address, server),
        GrpcClient(address, retries=Retries(9, 0.001)) as client,
        pytest.raises(ResponseError, match=r"Worker died\.") as error,
    ):
        client.predict(b"image", "flowers")
    assert (error.value.code, server.calls) == ("unavailable", 3)


@pytest.mark.parametrize(("code", "again"), [("overloaded", True), ("corrupt_image", False)])
def test_an_error_in_the_body_is_one_and_tried_again_where_that_may_help(code: str, again: bool) -> None:
    body = {"error": {"code": code, "message": "It failed."}, "request_id": "x"}
    with listening(body, ANSWER) as (address, server), GrpcClient(address, retries=QUICK) as client:
        if again:
            assert client.predict(b"image", "flowers").best.label == "rose"
        else:
            with pytest.raises(ResponseError, match="It failed"):
                client.predict(b"image", "flowers")
    assert server.calls == 1 + again


@pytest.mark.parametrize(
    ("step", "status", "code", "message"),
    [
        (UNKNOWN, 404, "not_found", "Model not found: roses"),
        ((grpc.StatusCode.CANCELLED, "RST_STREAM"), 413, "image_too_large", "RST_STREAM"),
        ((grpc.StatusCode.DATA_LOSS, "broken"), 500, "internal_error", "broken"),
    ],
    ids=["unknown-model", "too-large", "other"],
)
def test_a_status_becomes_the_error_that_http_has_without_java(
    step: Step, status: int, code: str, message: str
) -> None:
    with (
        listening(step) as (address, server),
        GrpcClient(address, retries=QUICK) as client,
        pytest.raises(ResponseError) as error,
    ):
        client.predict(b"image", "flowers")
    assert (error.value.status, error.value.code, error.value.message) == (status, code, message)
    assert server.calls == 1


def test_no_server_is_tried_again_within_the_time_and_then_unreachable() -> None:
    started = time.monotonic()
    client = GrpcClient("127.0.0.1:1", timeout_s=2, retries=Retries(50, 0.001))
    with client, pytest.raises(ServiceUnreachable) as error:
        client.predict(b"image", "flowers")
    assert error.value.cause in ("connection", "timeout")
    assert time.monotonic() - started < 10
