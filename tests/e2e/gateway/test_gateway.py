"""The gateway in front of fake servers: routing, rejections, error translation and logging."""

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.e2e.gateway.gateways import NEEDS_NGINX, NOWHERE, Behind, Gateway, Reply, Seen, behind, code, running

pytestmark = [pytest.mark.e2e, NEEDS_NGINX]

WORKER_DIED = b'{\n  "code": 500,\n  "type": "InternalServerException",\n  "message": "Worker died."\n}\n'
OWN_ERROR = b'{"error":{"code":"corrupt_image","message":"The file is truncated."},"request_id":"r-1"}'
REPLIES = {
    "refused": Reply(400, OWN_ERROR, {"x-error-body": OWN_ERROR.decode(), "Server-Timing": "total;dur=2.00"}),
    "failed": Reply(500, OWN_ERROR, {"x-error-body": OWN_ERROR.decode()}),
    "unknown": Reply(404, b'{\n  "code": 404\n}\n', {}),
    "busy": Reply(503, b'{\n  "code": 503\n}\n', {}),
    "died-507": Reply(507, WORKER_DIED, {}),
    "died-500": Reply(500, WORKER_DIED, {}),
    "unparsed": Reply(500, b'{\n  "code": 500,\n  "type": "ErrorDataDecoderException"\n}\n', {}),
    "foreign": Reply(415, b"<html>", {}),
}


answered: set[str] = set()


def torchserve(seen: Seen) -> Reply | None:
    model = seen.path.split("/")[2]
    if model.startswith("once-"):  # only the first time
        first = seen.headers["x-request-id"] not in answered
        answered.add(seen.headers["x-request-id"])
        _, died, then = model.split("_")
        return REPLIES[died] if first else REPLIES.get(then, Reply())
    if model == "silent":
        return None
    return REPLIES.get(model, Reply())


@pytest.fixture(scope="module")
def server() -> Iterator[Behind]:
    with behind(torchserve) as running_server:
        yield running_server


@pytest.fixture(scope="module")
def status() -> Iterator[Behind]:
    def answer(seen: Seen) -> Reply:
        if seen.path == "/readyz":
            return Reply(503, b'{"reason":"loading"}', {})
        return Reply(404 if seen.path.startswith("/models/unknown") else 200, seen.path.encode(), {})

    with behind(answer) as running_server:
        yield running_server


@pytest.fixture(scope="module")
def gateway(server: Behind, status: Behind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("gateway"), server.address, status=status.address) as running_server:
        yield running_server


# ---- proxying


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ("predictions/flowers", "/predictions/flowers"),
        ("predictions/flowers/1.0?x=y", "/predictions/flowers/1.0"),
        ("explanations/flowers", "/explanations/flowers"),
        ("v2/models/flowers/infer", "/predictions/flowers"),
        ("v2/models/flowers/versions/1.0/infer", "/predictions/flowers/1.0"),
        ("v1/models/flowers:predict", "/predictions/flowers"),
        ("//predictions//flowers", "/predictions/flowers"),
    ],
)
def test_every_inference_path_becomes_torchserves(gateway: Gateway, server: Behind, asked: str, sent: str) -> None:
    assert gateway.put(b"image", asked).status_code == 200
    assert (server.seen[-1].path, server.seen[-1].body) == (sent, b"image")


def test_options_of_the_query_become_headers_and_a_header_of_ones_own_wins(gateway: Gateway, server: Behind) -> None:
    gateway.put(b"image", "predictions/flowers?top_k=3&format=png")
    assert (server.seen[-1].headers["x-top-k"], server.seen[-1].headers["x-format"]) == ("3", "png")
    gateway.put(b"image", "predictions/flowers?top_k=3", x_top_k="7")
    assert server.seen[-1].headers["x-top-k"] == "7"
    gateway.put(b"image", "predictions/flowers?top_k=3%0D%0Aevil:1")
    assert server.seen[-1].headers["x-top-k"] == "3%0D%0Aevil:1"


def test_torchserve_gets_the_headers_that_the_handler_reads_and_no_others(gateway: Gateway, server: Behind) -> None:
    sent = {"x_top_k": "3", "x_format": "json", "x_request_id": "r-1", "content_type": "image/jpeg"}
    gateway.put(b"image", authorization="Bearer secret", cookie="a=b", x_api_key="secret", explain="True", **sent)
    received = dict(server.seen[-1].headers)
    assert float(received.pop("x-request-arrival")) == pytest.approx(time.time(), abs=30)
    assert received == {
        "host": "torchserve",
        "x-request-timeout": "30",
        "content-length": "5",
        "content-type": "image/jpeg",
        "x-request-id": "r-1",
        "x-top-k": "3",
        "x-format": "json",
    }


def test_a_photograph_that_curl_calls_a_form_goes_on_as_bytes(gateway: Gateway, server: Behind) -> None:
    requests.post(
        gateway.url("predictions/flowers"),
        data=b"image",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        timeout=30,
    )
    assert server.seen[-1].headers["content-type"] == "application/octet-stream"
    assert server.seen[-1].headers["x-form-type"] == "application/x-www-form-urlencoded"
    form = requests.post(gateway.url("predictions/flowers"), files={"file": b"image"}, timeout=30)
    assert form.status_code == 200
    # For the handler to read: TorchServe would take long for a form of many fields.
    assert server.seen[-1].headers["content-type"] == "application/octet-stream"
    assert server.seen[-1].headers["x-form-type"].startswith("multipart/form-data; boundary=")


def test_a_client_sets_neither_its_arrival_nor_its_time(gateway: Gateway, server: Behind) -> None:
    gateway.put(b"image", x_request_arrival="1", x_request_timeout="9999", x_gateway_client="key alice")
    received = server.seen[-1].headers
    assert time.time() - float(received["x-request-arrival"]) < 60
    assert received["x-request-timeout"] == "30"
    assert "x-gateway-client" not in received


def test_an_encoding_of_the_body_is_passed_on(gateway: Gateway, server: Behind) -> None:
    gateway.put(b"image", content_encoding="gzip")
    assert server.seen[-1].headers["content-encoding"] == "gzip"


def test_a_chunked_upload_arrives_whole(gateway: Gateway, server: Behind) -> None:
    parts = [b"x" * 100_000] * 12
    assert requests.put(gateway.url("predictions/flowers"), data=iter(parts), timeout=30).status_code == 200
    assert server.seen[-1].headers["content-length"] == "1200000"
    assert server.seen[-1].body == b"".join(parts)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="IPv6 is off here: run the tests where it is on")
def test_two_colons_are_all_of_ipv6_and_ipv4(server: Behind, tmp_path: Path) -> None:
    with running(tmp_path, server.address, host="::") as gateway:
        for host in ("[::1]", "127.0.0.1"):
            assert requests.get(f"http://{host}:{gateway.port}/", timeout=30).status_code == 200


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="IPv6 is off here: run the tests where it is on")
def test_it_serves_by_ipv6_alone(server: Behind, tmp_path: Path) -> None:
    with running(tmp_path, server.address, host="::1") as gateway:
        assert gateway.put(b"image").status_code == 200
        with pytest.raises(ConnectionRefusedError):
            gateway.connect()


def test_http_1_0_is_answered(gateway: Gateway) -> None:
    answer = gateway.raw(b"PUT /predictions/flowers HTTP/1.0\r\nContent-Length: 5\r\n\r\nimage")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b'{"predictions":[]}')


# ---- rejections


@pytest.mark.parametrize(
    "path",
    [
        *(
            "metrics",
            "drain",
            "ping",
            "invocations",
            "workflows/x",
            "api-description",
            "predictions",
            "v1/models/x:drop",
        ),
        *("models/flowers/1.0/2", "predictions/a/b/c", "predictions/../metrics", "nothing", "v2/repository"),
        *("predictions/flow%0aers", "predictions/flowers%0a", "predictions/flow ers", "v2/models/a%2fb/infer"),
    ],
)
def test_what_is_no_route_is_not_found(gateway: Gateway, server: Behind, status: Behind, path: str) -> None:
    before = len(server.seen), len(status.seen)
    answer = gateway.raw(f"PUT /{path.replace(' ', '%20')} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b'"code":"not_found"' in answer
    assert (len(server.seen), len(status.seen)) == before


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "predictions/flowers", "POST, PUT, OPTIONS"),
        ("DELETE", "v2/models/flowers/infer", "POST, PUT, OPTIONS"),
        ("POST", "models", "GET, HEAD, OPTIONS"),
        ("DELETE", "models/flowers", "GET, HEAD, OPTIONS"),
        ("PUT", "readyz", "GET, HEAD, OPTIONS"),
        ("POST", "", "GET, HEAD, OPTIONS"),
    ],
)
def test_another_method_is_refused_with_those_that_are_taken(
    gateway: Gateway, method: str, path: str, allow: str
) -> None:
    answer = requests.request(method, gateway.url(path), timeout=30)
    assert (answer.status_code, code(answer)) == (405, "method_not_allowed")
    assert answer.headers["allow"] == allow
    options = requests.options(gateway.url(path), timeout=30)
    assert (options.status_code, options.headers["allow"], options.content) == (204, allow, b"")


@pytest.mark.parametrize(
    "request_head",
    [
        *(
            b"GET /%2e%2e/metrics HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GARBAGE\r\n\r\n",
            b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        ),
        *(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"),
        b"POST /predictions/flowers HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
        b"POST /predictions/flowers HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc",
        b"POST /predictions/flowers HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\nabc",
        b"POST /predictions/flowers HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/7.3\r\nHost: x\r\n\r\n",
    ],
    ids=[
        *("above-the-root", "garbage", "long-path", "long-header", "no-host", "two-lengths", "broken-chunk"),
        *("gzip-transfer", "gzip-and-chunked", "unknown-version"),
    ],
)
def test_what_cannot_be_read_is_an_invalid_request(gateway: Gateway, request_head: bytes) -> None:
    head, _, body = gateway.raw(request_head).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    content = json.loads(body)
    assert content["error"]["code"] == "invalid_request"
    assert f"X-Request-Id: {content['request_id']}".encode() in head


def test_an_oversized_body_is_refused_announced_or_chunked(gateway: Gateway, server: Behind) -> None:
    before = len(server.seen)
    limit = 16 * 1024 * 1024
    announced = gateway.raw(f"PUT /predictions/m HTTP/1.1\r\nHost: x\r\nContent-Length: {limit + 1}\r\n\r\n".encode())
    assert announced.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"image_too_large"' in announced
    with gateway.connect() as connection:
        connection.sendall(b"PUT /predictions/m HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        block = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
        for _ in range(17):
            connection.sendall(block)
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")
    assert len(server.seen) == before
    assert gateway.put(bytes(limit)).status_code == 200


def test_a_browser_is_told_how_an_image_is_sent(gateway: Gateway) -> None:
    for path in ("predictions/flowers", "explanations/flowers", "v2/models/flowers/infer"):
        answer = gateway.get(path)
        assert (answer.status_code, code(answer), answer.headers["allow"]) == (
            *(405, "method_not_allowed", "POST, PUT, OPTIONS"),
        )
        assert "Send an image with POST or PUT, for instance: curl -T photo.jpg URL" in answer.text
    assert "curl" not in requests.post(gateway.url("models"), timeout=30).text


CONDITIONS = {
    "If-Match": '"a"',
    "If-None-Match": "*",
    "If-Modified-Since": "Wed, 21 Oct 2020 07:28:00 GMT",
    "If-Unmodified-Since": "Wed, 21 Oct 2000 07:28:00 GMT",
    "Range": "bytes=999999-",
    "If-Range": '"a"',
    "Expect": "200-ok",
    "Upgrade": "h2c",
}


@pytest.mark.parametrize("header", CONDITIONS)
@pytest.mark.parametrize("method", ["GET", "PUT", "OPTIONS", "PROPFIND", "CONNECT", "MKCOL", "DELETE"])
def test_no_error_is_nginxs_own_page(gateway: Gateway, method: str, header: str) -> None:
    for path in ("predictions/flowers", "v2/models/flowers/infer", "models", "readyz", "gateway/livez", "", "nothing"):
        answer = requests.request(
            method, gateway.url(path), headers={header: CONDITIONS[header]}, data=b"", allow_redirects=False, timeout=30
        )
        if answer.status_code >= 400 and path != "readyz":
            assert code(answer), (path, answer.text)
        assert "<html" not in answer.text


@pytest.mark.parametrize("header", ["If-Match", "If-Unmodified-Since"])
def test_a_condition_that_cannot_hold_is_refused_with_what_to_do(gateway: Gateway, header: str) -> None:
    answer = gateway.get("", **{header.replace("-", "_"): CONDITIONS[header]})
    assert (answer.status_code, code(answer)) == (412, "precondition_failed")
    assert "without If-Match" in answer.text
    assert gateway.put(b"image", If_Match='"a"').status_code == 200


@pytest.mark.parametrize("path", ["predictions/flowers", "v2/models/flowers/infer", "models", "", "nothing"])
def test_trace_is_refused_with_the_methods_that_are_taken(gateway: Gateway, path: str) -> None:
    answer = requests.request("TRACE", gateway.url(path), timeout=30)
    assert (answer.status_code, code(answer)) == (405, "method_not_allowed")
    assert answer.headers["allow"]


@pytest.mark.parametrize(
    ("number", "stays"), [(404, True), (405, True), (415, True), (503, True), (400, False), (413, False), (500, False)]
)
def test_the_document_says_which_answers_close_the_connection(gateway: Gateway, number: int, stays: bool) -> None:
    models = {404: "unknown", 415: "foreign", 503: "busy", 400: "refused", 500: "failed"}
    length = 17 << 20 if number == 413 else 0
    method, model = "GET" if number == 405 else "PUT", models.get(number, "flowers")
    asked = f"{method} /predictions/{model} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
    with gateway.connect() as connection:
        connection.sendall(asked.encode())
        head = connection.recv(65536)
        assert head.startswith(f"HTTP/1.1 {number} ".encode())
        assert (b"Connection: close" not in head) == stays


# ---- translation


@pytest.mark.parametrize(
    ("model", "status_code", "error"),
    [
        *(("unknown", 404, "not_found"), ("busy", 503, "unavailable"), ("died-507", 503, "unavailable")),
        *(("died-500", 503, "unavailable"), ("foreign", 415, "unsupported_image"), ("unparsed", 500, "internal_error")),
    ],
)
def test_torchserves_own_errors_become_ours(gateway: Gateway, model: str, status_code: int, error: str) -> None:
    answer = gateway.put(b"image", f"predictions/{model}")
    assert (answer.status_code, code(answer)) == (status_code, error)
    assert ("retry-after" in answer.headers) == (status_code == 503)


@pytest.mark.parametrize("died", ["died-500", "died-507"])
@pytest.mark.parametrize("body", [b"image", bytes(1_500_000)], ids=["small", "large"])
def test_a_request_whose_worker_died_goes_to_another_worker_once(
    gateway: Gateway, server: Behind, died: str, body: bytes
) -> None:
    before = len(server.seen)
    answer = gateway.put(body, f"predictions/once-_{died}_answers?top_k=2", traceparent=f"00-{'a' * 32}-{'b' * 16}-01")
    assert answer.status_code == 200
    first, second = server.seen[before:]
    varying = {"x-request-arrival"}
    assert (first.path, first.body) == (second.path, second.body) == (f"/predictions/once-_{died}_answers", body)
    assert {name: text for name, text in first.headers.items() if name not in varying} == {
        name: text for name, text in second.headers.items() if name not in varying
    }
    assert gateway.log_line(answer.headers["x-request-id"])["status"] == 200
    # What the second worker says of the image is the answer, whatever it is.
    for model, status_code in {"refused": 400, "failed": 500}.items():
        answer = gateway.put(body, f"predictions/once-_{died}_{model}")
        assert (answer.status_code, answer.content) == (status_code, OWN_ERROR)


@pytest.mark.parametrize("died", ["died-500", "died-507"])
def test_an_image_that_kills_every_worker_kills_two(gateway: Gateway, server: Behind, died: str) -> None:
    before = len(server.seen)
    answer = gateway.put(b"image", f"predictions/{died}")
    assert (answer.status_code, code(answer), answer.headers["retry-after"]) == (503, "unavailable", "2")
    assert len(server.seen) - before == 2


def test_a_form_that_torchserve_cannot_parse_is_the_clients_fault(gateway: Gateway) -> None:
    answer = gateway.put(b"--x", "predictions/unparsed", content_type="multipart/form-data; boundary=x")
    assert (answer.status_code, code(answer)) == (400, "invalid_request")


@pytest.mark.parametrize(("model", "status_code"), [("refused", 400), ("failed", 500)])
def test_the_handlers_own_errors_stay_to_the_letter(gateway: Gateway, model: str, status_code: int) -> None:
    answer = gateway.put(b"image", f"predictions/{model}", x_request_id="r-1")
    assert (answer.status_code, answer.content) == (status_code, OWN_ERROR)
    assert answer.headers["content-type"] == "application/json"
    assert "x-error-body" not in answer.headers
    if model == "refused":
        assert answer.headers["server-timing"] == "total;dur=2.00"


def test_a_request_that_ends_torchserves_connection_is_not_sent_again_and_again(
    gateway: Gateway, server: Behind
) -> None:
    before = len(server.seen)
    answer = gateway.put(b"image", "predictions/silent")
    assert (answer.status_code, code(answer), answer.headers["retry-after"]) == (503, "unavailable", "2")
    # Once more at most for each connection that had been kept; never on a fresh one.
    assert len(server.seen) - before <= 3


def test_no_request_is_lost_when_kept_connections_close_without_notice(tmp_path: Path) -> None:
    with behind(lambda _: Reply(close=True)) as server, running(tmp_path, server.address) as gateway:
        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(lambda _: gateway.put(b"image").status_code, range(300)))
        assert statuses == [200] * 300


def test_a_dead_server_is_unavailable_at_once_and_a_silent_one_after_its_time(tmp_path: Path) -> None:
    def late(_: Seen) -> Reply:
        time.sleep(3)
        return Reply()

    with running(tmp_path) as gateway:
        started = time.monotonic()
        answer = gateway.put(b"image")
        assert (answer.status_code, code(answer), answer.headers["retry-after"]) == (503, "unavailable", "2")
        assert time.monotonic() - started < 2
    with behind(late) as server, running(tmp_path, server.address, answer_timeout_s=1) as gateway:
        answer = gateway.put(b"image")
        assert (answer.status_code, code(answer), answer.headers["retry-after"]) == (504, "deadline_exceeded", "2")
        assert len(server.seen) == 1


# ---- request ids


@pytest.mark.parametrize(
    ("sent", "kept"), [("Mine.1_2-3", True), ("a" * 128, True), ("a" * 129, False), ("a b", False), ("", False)]
)
@pytest.mark.parametrize("path", ["predictions/flowers", "predictions/unknown", "metrics", "livez"])
def test_a_request_id_is_kept_or_made_and_said_once_on_every_answer(
    gateway: Gateway, server: Behind, path: str, sent: str, kept: bool
) -> None:
    asked = f"PUT /{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nx-request-id: {sent}\r\nContent-Length: 0\r\n\r\n"
    head = gateway.raw(asked.encode()).partition(b"\r\n\r\n")[0].decode().lower()
    ids = [line.partition(": ")[2] for line in head.splitlines() if line.startswith("x-request-id:")]
    assert len(ids) == 1
    assert (ids[0] == sent.lower()) == kept
    assert kept or len(ids[0]) == 32
    if path.startswith("predictions"):
        assert server.seen[-1].headers["x-request-id"].lower() == ids[0]


# ---- the status server


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        *(("models", "/models"), ("models/flowers", "/models/flowers"), ("v1/models/flowers", "/models/flowers")),
        *(("v2", "/v2"), ("v2/models/flowers", "/v2/models/flowers"), ("livez?x=1", "/livez")),
        *(("v2/models/a/versions/1.0", "/v2/models/a/versions/1.0"), ("v2/models/a/ready", "/v2/models/a/ready")),
        *(("v2/health/live", "/v2/health/live"), ("health", "/health"), ("v2/health/ready", "/v2/health/ready")),
        *(("openapi.yaml", "/openapi.yaml"), ("docs", "/docs"), ("docs/start.js", "/docs/start.js")),
    ],
)
def test_what_is_read_comes_from_the_status_server(gateway: Gateway, status: Behind, asked: str, sent: str) -> None:
    answer = gateway.get(asked)
    assert (answer.status_code, answer.text, status.seen[-1].path) == (200, sent, sent)
    assert requests.head(gateway.url(asked), timeout=30).status_code == 200


def test_its_refusals_pass_where_they_say_why_and_are_translated_where_not(gateway: Gateway) -> None:
    unready = gateway.get("readyz")
    assert (unready.status_code, unready.content) == (503, b'{"reason":"loading"}')
    unknown = gateway.get("models/unknown")
    assert (unknown.status_code, code(unknown)) == (404, "not_found")


def test_without_a_status_server_nothing_is_ready(tmp_path: Path) -> None:
    with running(tmp_path) as gateway:
        for path in ("livez", "readyz", "models"):
            answer = gateway.get(path)
            assert (answer.status_code, code(answer)) == (503, "unavailable")


def test_the_root_lists_the_routes(gateway: Gateway) -> None:
    answer = gateway.get("")
    assert "POST|PUT /predictions/{model}[/{version}]" in answer.json()["routes"]
    assert answer.headers["content-type"] == "application/json"


def test_every_answer_says_how_it_may_be_used_and_not_by_whom_it_is_given(gateway: Gateway) -> None:
    for path in ("", "metrics", "models"):
        headers = gateway.get(path).headers
        assert headers["server"] == "nginx"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["content-security-policy"].startswith("default-src 'none'")


# ---- logging


def test_a_request_is_a_json_line_without_query_and_body(gateway: Gateway) -> None:
    agent = 'evil" \\ \t{"status":1}'
    gateway.put(b"SECRETIMAGE", "predictions/flowers?token=SECRETQUERY", x_request_id="log-1", user_agent=agent)
    line = gateway.log_line("log-1")
    assert (line["method"], line["path"], line["route"], line["status"]) == (
        *("PUT", "/predictions/flowers", "predictions", 200),
    )
    assert line["user_agent"] == agent
    assert line["bytes_in"] > len(b"SECRETIMAGE")
    assert line["upstream_status"] == "200"
    assert set(line) == {
        *("time", "request_id", "client", "address", "method", "path", "route", "status", "bytes_in", "bytes_out"),
        *("duration_s", "upstream", "upstream_status", "upstream_s", "user_agent", "trace_parent"),
    }
    assert "SECRET" not in gateway.log.read_text()


@pytest.mark.parametrize(
    ("sent", "logged"),
    [
        (b"caf\xe9 browser", "caf\ufffd"),
        ("café 中文 \U0001f33b".encode(), "café 中文 \U0001f33b"),
        (b"\xff", "\ufffd"),
        (b"a\xc0\xafb", "a\ufffd"),
        (b"a\xed\xa0\x80", "a\ufffd"),
        (b"x" * 7000 + b"\x80", "x" * 7000 + "\ufffd"),
    ],
    ids=["latin-1", "utf-8", "one byte", "overlong", "surrogate", "long"],
)
def test_a_line_of_the_log_is_utf_8_whatever_was_sent(gateway: Gateway, sent: bytes, logged: str) -> None:
    request_id = f"utf8-{len(sent)}-{sent[-1]}"
    head = b"PUT /predictions/m%c HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\nUser-Agent: %b\r\n"
    gateway.raw(head % (0xE9, sent) + b"X-Request-Id: " + request_id.encode() + b"\r\n\r\n")
    line = gateway.log_line(request_id)
    assert (line["user_agent"], line["path"]) == (logged, "/predictions/m\ufffd")


TRACE_ID = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_trace_is_passed_on_returned_and_logged(gateway: Gateway, server: Behind) -> None:
    answer = gateway.put(b"image", traceparent=TRACE_ID, tracestate="vendor=1", x_request_id="trace-1")
    received = server.seen[-1].headers
    assert (received["traceparent"], received["tracestate"]) == (TRACE_ID, "vendor=1")
    assert answer.headers["traceparent"] == TRACE_ID
    assert gateway.log_line("trace-1")["trace_parent"] == TRACE_ID
    assert gateway.get("metrics", traceparent=TRACE_ID).headers["traceparent"] == TRACE_ID


@pytest.mark.parametrize(
    "sent", ["", "00-" + "0" * 32 + "-b7ad6b7169203331-01", TRACE_ID.upper(), TRACE_ID + "-x", "ff" + TRACE_ID[2:]]
)
def test_no_other_text_is_taken_for_a_trace(gateway: Gateway, server: Behind, sent: str) -> None:
    answer = gateway.put(b"image", traceparent=sent, tracestate="vendor=1")
    assert "traceparent" not in answer.headers
    assert not {"traceparent", "tracestate"} & set(server.seen[-1].headers)


def test_each_request_is_a_record_by_syslog(server: Behind, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(20)
        records = f"127.0.0.1:{listener.getsockname()[1]}"
        with running(tmp_path, server.address, records=records, workers=2, concurrency=12) as gateway:
            listener.recv(65536)  # the request by which the test saw that the gateway is open
            gateway.put(b"image", "v2/models/flowers/infer")
            head, _, message = listener.recv(65536).partition(b"gateway: ")
            record = json.loads(message)
            assert head.startswith(b"<190>")
            assert (record["route"], record["status"], record["timing"]) == ("predictions", 200, "total;dur=1.00")
            assert record["places"] == 12
            assert 0 <= float(record["upstream_s"]) <= record["duration_s"] + 0.01
            gateway.raw(b"PUT /explanations/m HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n")
            record = json.loads(listener.recv(65536).partition(b"gateway: ")[2])
            assert (record["route"], record["status"], record["upstream_s"]) == ("explanations", 413, "")


def test_nobody_has_to_listen_to_the_records(server: Behind, tmp_path: Path) -> None:
    with running(tmp_path, server.address, records=NOWHERE) as gateway:
        assert [gateway.put(b"image").status_code for _ in range(5)] == [200] * 5


def test_answers_from_a_dead_server_are_told_apart_in_the_log(tmp_path: Path) -> None:
    with running(tmp_path) as gateway:
        gateway.put(b"image", x_request_id="dead-1")
        assert gateway.log_line("dead-1")["upstream"] == NOWHERE
