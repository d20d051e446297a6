"""Our patches of TorchServe's worker, compared with its own code: the same messages, fewer calls and lines."""

import io
import logging
import random
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from socket import socketpair
from typing import Any

import pytest
from ts.metrics.caching_metric import CachingMetric
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
from ts.protocol import otf_message_handler as protocol
from ts.service import Service

from handlers import torchserve_worker
from handlers.torchserve_worker import AHEAD, Reader

METRICS = Path(__file__).parents[2] / "metrics.yaml"
HEADERS = [(f"header-{n}".encode(), b"value " * n) for n in range(14)]
# Around the size that is read ahead, and far above it.
BODIES = [b"", b"x", b"y" * (AHEAD - 1), b"z" * AHEAD, bytes(range(256)) * 300]


def field(content: bytes) -> bytes:
    return struct.pack("!i", len(content)) + content


def message(bodies: Sequence[bytes]) -> bytes:
    """A batch as TorchServe's Java writes it."""
    end = struct.pack("!i", -1)
    headers = b"".join(field(name) + field(value) for name, value in HEADERS) + end
    requests = [
        field(b"id-%d" % n) + headers + field(b"body") + field(b"image/jpeg") + field(body) + end
        for n, body in enumerate(bodies)
    ]
    return b"".join([protocol.PREDICT_MSG, *requests, end])


class Wire:
    """A connection that hands out its bytes in pieces of a size, and counts how often it is asked."""

    def __init__(self, content: bytes, piece: int) -> None:
        self._content, self._piece = io.BytesIO(content), piece
        self.calls = 0

    def recv(self, length: int) -> bytes:
        self.calls += 1
        return self._content.read(min(length, self._piece))

    def recv_into(self, buffer: memoryview) -> int:
        data = self.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def left(self) -> int:
        return len(self._content.read())


@pytest.fixture
def as_ours(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    for name in ("_retrieve_buffer", "_retrieve_inference_msg"):
        monkeypatch.setattr(protocol, name, getattr(protocol, name))
    monkeypatch.setenv("TS_DECODE_INPUT_REQUEST", "false")  # config.properties
    return lambda: None if torchserve_worker.read_ahead() else pytest.fail("TorchServe has no such reader any more")


@pytest.mark.parametrize("piece", [1, 7, AHEAD - 1, AHEAD, 1 << 30])
def test_a_batch_is_read_as_torchserve_reads_it(piece: int, as_ours: Callable[[], None]) -> None:
    content = message(BODIES)
    expected = protocol.retrieve_msg(Wire(content, piece))
    as_ours()
    wire = Wire(content, piece)
    assert protocol.retrieve_msg(wire) == expected
    assert wire.left() == 0


def request(rng: random.Random) -> bytes:
    """A request of any number of headers and fields, empty ones, long ones and none among them."""
    end = struct.pack("!i", -1)

    def content() -> bytes:
        return rng.randbytes(rng.choice([0, 1, 40, AHEAD // 2, AHEAD, 3 * AHEAD] if rng.random() < 0.1 else [0, 1, 40]))

    headers = [field(content()) + field(content()) for _ in range(rng.randrange(4))]
    fields = [
        field(rng.choice([b"", b"body"])) + field(b"text/plain") + field(content()) for _ in range(rng.randrange(4))
    ]
    return b"".join([field(content()), *headers, end, *fields, end])


def test_odd_requests_are_read_as_torchserve_reads_them(
    as_ours: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(0)
    end = struct.pack("!i", -1)
    contents = [
        b"".join([protocol.PREDICT_MSG, *(request(rng) for _ in range(rng.randrange(4))), end]) for _ in range(300)
    ]
    monkeypatch.setattr(protocol, "_retrieve_request", protocol._retrieve_request)
    assert torchserve_worker.keep_repeated_fields()
    expected = [protocol.retrieve_msg(Wire(content, 1 << 30)) for content in contents]
    as_ours()
    for content, batch in zip(contents, expected, strict=True):
        for piece in (1 << 30, 1 + rng.randrange(2 * AHEAD), 5):
            wire = Wire(content, piece)
            assert protocol.retrieve_msg(wire) == batch
            assert wire.left() == 0


def test_bodies_are_decoded_where_torchserve_is_set_to(
    as_ours: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TS_DECODE_INPUT_REQUEST")
    end = struct.pack("!i", -1)
    content = (
        protocol.PREDICT_MSG + field(b"id") + end + field(b"body") + field(b"text/plain") + field(b"x") + end + end
    )
    as_ours()
    assert protocol.retrieve_msg(Wire(content, 1 << 30))[1][0]["parameters"][0]["value"] == "x"


def test_a_photograph_takes_a_few_calls_instead_of_one_for_each_field(as_ours: Callable[[], None]) -> None:
    content = message([bytes(70_000)] * 4)
    stock = Wire(content, 1 << 30)
    protocol.retrieve_msg(stock)
    as_ours()
    ours = Wire(content, 1 << 30)
    protocol.retrieve_msg(ours)
    assert stock.calls > 4 * 60
    assert ours.calls <= 4 * 3


def test_two_files_of_one_name_both_reach_the_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    end = struct.pack("!i", -1)
    fields = [(b"file", b"first"), (b"file", b"second"), (b"top_k", b"2"), (b"file", b"third")]
    parts = b"".join(field(name) + field(b"image/jpeg") + field(value) for name, value in fields)
    content = protocol.PREDICT_MSG + field(b"id") + end + parts + end + end
    monkeypatch.setattr(protocol, "_retrieve_request", protocol._retrieve_request)
    assert torchserve_worker.keep_repeated_fields()
    _, batch = protocol.retrieve_msg(Wire(content, 1 << 30))
    _, rows, _ = Service.retrieve_data_for_inference(batch)
    assert list(rows[0].values()) == [b"first", b"second", b"2", b"third"]
    assert list(rows[0])[:1] == ["file"] and "top_k" in rows[0]


def test_batch_after_batch_comes_over_a_real_socket(as_ours: Callable[[], None]) -> None:
    """Each batch is sent when the last one was answered, as Java does it."""
    as_ours()
    near, far = socketpair()
    with near, far:

        def send() -> None:
            for count in (1, 4, 2):
                far.sendall(message([bytes([count]) * 70_000] * count))
                assert far.recv(2) == b"ok"

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        for count in (1, 4, 2):
            command, batch = protocol.retrieve_msg(near)
            assert command == protocol.PREDICT_MSG
            values = [bytes(request["parameters"][0]["value"]) for request in batch]
            assert values == [bytes([count]) * 70_000] * count
            near.sendall(b"ok")
        sender.join(10)


@pytest.mark.parametrize("received", [0, 3, 900, AHEAD, 60_000])
def test_a_connection_that_ends_ends_the_worker_as_before(received: int) -> None:
    wire = Wire(message([bytes(70_000)])[:received], 1 << 30)
    reader = Reader()
    with pytest.raises(SystemExit) as ended:
        while True:
            reader(wire, 512)  # type: ignore[arg-type]
    assert ended.value.code == 0


@pytest.mark.parametrize("name", ["_retrieve_buffer", "_retrieve_request", "_retrieve_inference_msg"])
def test_another_torchserve_keeps_its_own_reader(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(protocol, name)
    before = dict(vars(protocol))
    assert not torchserve_worker.read_ahead()
    assert vars(protocol) == before


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What a worker prints: it logs to the root, at information, as TorchServe sets it up."""
    messages: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    root, metric = logging.getLogger(), logging.getLogger(CachingMetric.__module__)
    levels, handler = (root.level, metric.level), Keep()
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    yield messages
    root.removeHandler(handler)
    root.setLevel(levels[0])
    metric.setLevel(levels[1])


def test_a_batch_prints_nothing_and_what_matters_still_is(lines: list[str]) -> None:
    metrics: Any = MetricsCacheYamlImpl(str(METRICS))
    metrics.initialize_cache()
    wire = [Wire(message([b"x"]), 1 << 30) for _ in range(2)]

    def batch(number: int) -> None:
        protocol.retrieve_msg(wire[number])
        metrics.add_time("PredictionTime", 1.0)

    lines.clear()
    batch(0)
    assert len(lines) == 2  # otherwise there is nothing to stop any more
    lines.clear()
    torchserve_worker.be_quiet(metrics)
    batch(1)
    assert lines == []
    next(group["visionserve_requests_total"] for group in metrics.cache.values()).add_or_update(1, ["m", "200", "ok"])
    logging.warning("a warning")
    assert [line.split(".")[0] for line in lines] == ["[METRICS]visionserve_requests_total", "a warning"]
