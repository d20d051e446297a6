"""The client in networks as they are: slow servers, proxies, TLS, other servers at the address."""

import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.unit.client.certificates import self_signed, server_context
from tests.unit.client.conftest import IMAGE, QUICK, Blocking
from tests.unit.client.fake_service import MODEL, Scripted, serving
from visionserve.client import Client, ResponseError, Retries, ServiceUnreachable
from visionserve.client.proxies import bypasses, proxy_for

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n"
MakeClient = Callable[..., Any]


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ssl_cert_file", "ssl_cert_dir"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(params=[Client, Blocking], ids=["blocking", "async"])
def make(request: pytest.FixtureRequest) -> Iterator[MakeClient]:
    clients: list[Any] = []

    def create(url: str, **options: Any) -> Any:
        clients.append(request.param(url, **{"timeout_s": 10, "retries": QUICK, **options}))
        return clients[-1]

    yield create
    for client in clients:
        with client:
            pass


@contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Accept connections and let ``answer`` do with each as it likes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=served, args=(connection,), daemon=True).start()

    def served(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            answer(connection)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def trickled(start: bytes, rest: bytes) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(start)
        for byte in rest * 1000:
            connection.sendall(bytes([byte]))
            time.sleep(0.05)

    return answer


def never_read(connection: socket.socket) -> None:
    while connection.recv(100):
        time.sleep(0.05)


@pytest.mark.parametrize(
    "answer",
    [trickled(b"", HEAD), trickled(HEAD, b"x-more: 1\r\n"), trickled(HEAD + b"\r\n", b"{"), never_read],
    ids=["status-line", "headers", "body", "upload"],
)
def test_the_time_limit_is_for_the_whole_exchange(make: MakeClient, answer: Callable[[socket.socket], None]) -> None:
    with listening(answer) as url:
        client = make(url, timeout_s=0.6)
        started = time.monotonic()
        with pytest.raises(ServiceUnreachable, match=r"no answer within 0\.6 s") as error:
            client.predict(bytes(8 << 20), "flowers")
    assert time.monotonic() - started < 5, "a whole response would take 20 s and more"
    assert error.value.cause == "timeout"


def test_the_time_limit_includes_the_look_up_of_the_name(make: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a name server does that answers late."""
    client = make("http://service.example", timeout_s=0.6)
    ended = threading.Event()

    def slow(*_arguments: Any, **_options: Any) -> Any:
        ended.wait(20)
        raise socket.gaierror(socket.EAI_AGAIN, "late")

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    started = time.monotonic()
    try:
        with pytest.raises(ServiceUnreachable, match=r"no answer within 0\.6 s") as error:
            client.predict(IMAGE, "flowers")
        assert time.monotonic() - started < 10
    finally:
        ended.set()
    assert error.value.cause == "timeout"


HUNG_LOOK_UP = """
import asyncio, socket, time
from visionserve.client import AsyncClient, ServiceUnreachable
socket.getaddrinfo = lambda *_, **__: time.sleep(300)
async def ask():
    async with AsyncClient("http://service.example", timeout_s=0.5) as client:
        try:
            await client.predict(b"image", "flowers")
        except ServiceUnreachable as error:
            print(error.cause)
asyncio.run(ask())
"""


def test_a_look_up_that_hangs_holds_no_program_of_asyncio_at_its_end() -> None:
    done = subprocess.run([sys.executable, "-c", HUNG_LOOK_UP], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "timeout\n"


@pytest.mark.parametrize("status", [500, 503])
def test_a_worker_that_died_is_replaced_by_another(make: MakeClient, status: int) -> None:
    died = {"code": status, "type": "InternalServerException", "message": "Worker died."}
    with serving(Scripted(status, died), Scripted()) as service:
        assert make(service.url).predict(IMAGE, "flowers").best.label == "rose"
    with serving(Scripted(500, died)) as service, pytest.raises(ResponseError, match="Worker died") as error:
        make(service.url, retries=Retries(9, 0.001)).predict(IMAGE, "flowers")
    assert error.value.code == "unavailable"
    assert len(service.asked) == 3


def test_an_error_of_the_service_itself_is_not_tried_again(make: MakeClient) -> None:
    internal = {"error": {"code": "internal_error", "message": "It failed."}, "request_id": "x"}
    with serving(Scripted(500, internal)) as service, pytest.raises(ResponseError):
        make(service.url).predict(IMAGE, "flowers")
    assert len(service.asked) == 1


@pytest.mark.parametrize(
    ("host", "no_proxy", "direct"),
    [
        ("127.0.0.1", "", True),
        ("127.9.9.9", "", True),
        ("::1", "", True),
        ("::ffff:127.0.0.1", "", True),
        ("0.0.0.0", "", True),
        ("localhost", "", True),
        ("LOCALHOST.", "", True),
        ("api.localhost", "", True),
        ("localhost.example", "", False),
        ("host", "", False),
        ("host", "*", True),
        ("host", "other, host", True),
        ("host", "host:8000", True),
        ("host", "host:9000", False),
        ("a.example.com", "example.com", True),
        ("a.example.com", ".example.com", True),
        ("a.example.com", "*.example.com", True),
        ("a.example.com", "example.com.", True),
        ("badexample.com", "example.com", False),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("fd00::5", "fd00::/8", True),
        ("fd00::5", "[fd00::]/8 fe80::/10", True),
        ("fd00::5", "[fd00::5]:8000", True),
        ("fd00::5", "fd00:0::5", True),
        ("fd01::5", "[::1],fe80::/10,,not an address/99", False),
    ],
)
def test_hosts_that_no_proxy_names_and_this_machine_are_reached_directly(
    host: str, no_proxy: str, direct: bool
) -> None:
    assert bypasses(host, 8000, no_proxy) is direct


def test_no_proxy_with_ipv6_addresses_and_ranges_is_no_error(make: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "[::1],fd00::/8,10.0.0.0/8,::1/128,localhost")
    with serving() as service:
        assert make(service.url).predict(IMAGE, "flowers").best.label == "rose"


def test_another_host_is_reached_through_the_proxy(make: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("://", "://user:secret@"))
        assert make("http://service.invalid").predict(IMAGE, "flowers").best.label == "rose"
    assert proxy.asked[0].path == "http://service.invalid/predictions/flowers"
    assert "proxy-authorization" in proxy.asked[0].headers


@pytest.mark.parametrize("status", [403, 407, 502, 503])
def test_an_error_page_of_a_proxy_is_reported_as_such(
    make: MakeClient, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    with serving(Scripted(status, b"<html>Access denied</html>", {"Server": "squid"})) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("://", "://user:secret@"))
        with pytest.raises(ResponseError, match=f"{status}.*not visionserve's.*proxy {proxy.url}") as error:
            make("http://service.invalid").predict(IMAGE, "flowers")
    assert not error.value.from_service
    assert "secret" not in str(error.value)


def test_a_proxy_that_is_not_there_is_named(make: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "127.0.0.1:1")
    with pytest.raises(
        ServiceUnreachable, match=r"the proxy http://127\.0\.0\.1:1 failed: Connection refused"
    ) as error:
        make("http://service.invalid").predict(IMAGE, "flowers")
    assert error.value.cause == "proxy"


def test_a_proxy_that_refuses_a_tunnel_is_named(make: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")

    with listening(refuse) as proxy:
        monkeypatch.setenv("https_proxy", proxy)
        with pytest.raises(ServiceUnreachable, match=r"the proxy .* failed: 403 Forbidden"):
            make("https://service.invalid").predict(IMAGE, "flowers")


@pytest.mark.parametrize(
    "proxy", ["http://", "ftp://me:secret@host", "http://me:secret@host:port", "socks4://host", "http://a..b"]
)
def test_a_proxy_that_cannot_be_one_is_a_sentence(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(ValueError, match="proxy") as refused:
        Client("http://service.invalid")
    assert "secret" not in str(refused.value)


def test_a_proxy_with_spaces_around_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", " http://all:1\n")
    assert proxy_for("http://host") == "http://all:1"


def test_the_proxy_of_a_scheme_is_used_for_it_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://secure:1")
    assert proxy_for("http://host") is None
    monkeypatch.setenv("all_proxy", "http://all:1")
    assert (proxy_for("http://host"), proxy_for("https://host")) == ("http://all:1", "http://secure:1")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return self_signed(tmp_path_factory.mktemp("tls"))


def test_a_certificate_is_checked_against_the_file_that_is_given(make: MakeClient, certificate: Path) -> None:
    with serving(tls=server_context(certificate)) as service:
        with pytest.raises(ServiceUnreachable, match=r"certificate is not trusted: self.signed certificate") as error:
            make(service.url).predict(IMAGE, "flowers")
        assert error.value.cause == "certificate"
        assert make(service.url, cacert=certificate).predict(IMAGE, "flowers").best.label == "rose"
        assert make(service.url, insecure=True).predict(IMAGE, "flowers").best.label == "rose"


def test_a_certificate_of_another_host_is_named_so(make: MakeClient, tmp_path: Path) -> None:
    certificate = self_signed(tmp_path, "192.0.2.1")
    with (
        serving(tls=server_context(certificate)) as service,
        pytest.raises(ServiceUnreachable, match=r"not trusted: .*mismatch") as error,
    ):
        make(service.url, cacert=certificate).predict(IMAGE, "flowers")
    assert error.value.cause == "address", "another authority does not help"


def test_a_server_that_asks_for_a_certificate_says_so(make: MakeClient, certificate: Path) -> None:
    context = server_context(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certificate)
    with (
        serving(tls=context) as service,
        pytest.raises(ServiceUnreachable, match="asks for a certificate of the client"),
    ):
        make(service.url, cacert=certificate).predict(IMAGE, "flowers")


@pytest.mark.parametrize("insecure", [True, False])
def test_a_log_of_keys_that_cannot_be_written_is_named(
    make: MakeClient, monkeypatch: pytest.MonkeyPatch, insecure: bool
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", "/nowhere/keys")
    with pytest.raises(ValueError, match="SSLKEYLOGFILE /nowhere/keys cannot be written: No such file or directory"):
        make("https://host", insecure=insecure)


def test_https_to_a_plain_server_and_http_to_a_tls_server_say_so(make: MakeClient) -> None:
    with serving() as service, pytest.raises(ServiceUnreachable, match="does not use TLS: try http://"):
        make(service.url.replace("http:", "https:")).predict(IMAGE, "flowers")
    nginx = Scripted(400, b"<html>400 The plain HTTP request was sent to HTTPS port</html>")
    with serving(nginx) as service, pytest.raises(ServiceUnreachable, match="it uses TLS: try https://"):
        make(service.url).predict(IMAGE, "flowers")


def test_a_tls_connection_that_breaks_is_tried_again(make: MakeClient) -> None:
    connections = []
    with (
        listening(lambda connection: connections.append(connection.recv(100))) as url,
        pytest.raises(ServiceUnreachable) as error,
    ):
        make(url.replace("http:", "https:")).predict(IMAGE, "flowers")
    assert error.value.cause == "connection"
    assert len(connections) == 1 + QUICK.count


def test_certificate_files_that_are_missing_or_empty_are_a_sentence_and_only_for_https(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    with serving() as service, Client(service.url) as client:
        assert client.predict(IMAGE, "flowers").best.label == "rose"
    with pytest.raises(ValueError, match=r"SSL_CERT_FILE /nowhere/ca\.pem cannot be read: No such file"):
        Client("https://host")
    (tmp_path / "empty.pem").write_text("nothing")
    with pytest.raises(ValueError, match="has no certificates"):
        Client("https://host", cacert=tmp_path / "empty.pem")


def test_the_only_served_model_is_the_default(make: MakeClient) -> None:
    with serving(served=["birds"]) as service:
        client = make(service.url)
        client.predict(IMAGE)
        client.explain(IMAGE)
    assert [asked.path for asked in service.asked] == ["/predictions/birds", "/explanations/birds"]


@pytest.mark.parametrize(
    ("served", "message"), [(["pets", "birds"], "name one of birds, pets"), ([], "No model is served yet")]
)
def test_without_a_single_model_one_must_be_named(make: MakeClient, served: list[str], message: str) -> None:
    models = Scripted(content={"models": [{**MODEL, "name": name} for name in served]})
    with serving(models) as service, pytest.raises(ValueError, match=message):
        make(service.url).predict(IMAGE)


def test_models_at_torchserves_own_port_say_where_they_are_listed(make: MakeClient) -> None:
    own = {"code": 404, "type": "ResourceNotFoundException", "message": "Requested resource is not found."}
    for call in ("models", "model", "predict"):
        with serving(Scripted(404, own)) as service, pytest.raises(ResponseError, match=r"status_url \(port 8083\)"):
            getattr(make(service.url), call)(*([IMAGE] if call == "predict" else []))


def test_a_pipe_is_not_read(make: MakeClient, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(OSError, match="Not a regular file"):
        make("http://127.0.0.1:1").predict(tmp_path / "pipe.jpg", "flowers")
