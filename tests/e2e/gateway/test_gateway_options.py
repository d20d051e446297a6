"""The gateway's options: API keys, pages of other origins, TLS, the page, another user."""

import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from gateway.options import OPTIONS, resolve
from gateway.render import check, nginx, render
from tests.e2e.conftest import ROOT, free_ports
from tests.e2e.gateway.gateways import NEEDS_NGINX, Behind, Gateway, Reply, Seen, behind, code, plain, running

pytestmark = [pytest.mark.e2e, NEEDS_NGINX]

KEY = "Abcdefghijklmnop-123"
ORIGIN = "https://page.example.org"


@pytest.fixture(scope="module")
def server() -> Iterator[Behind]:
    with behind(plain) as running_server:
        yield running_server


# ---- API keys


@pytest.fixture(scope="module")
def locked(server: Behind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("locked")
    keys = folder / "keys"
    keys.write_text(f"# who: what\n\nalice: {KEY}\nbob:~default/0123456789+==\n")
    with running(
        folder, server.address, status=server.address, api_keys_file=keys, cors_origins=ORIGIN
    ) as running_server:
        yield running_server


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ({"authorization": f"Bearer {KEY}"}, "alice"),
        ({"authorization": f"bearer  {KEY}"}, "alice"),
        ({"x_api_key": KEY}, "alice"),
        ({"x_api_key": "~default/0123456789+=="}, "bob"),
    ],
)
def test_a_known_key_opens_and_its_owner_is_written_down(
    locked: Gateway, server: Behind, headers: dict[str, str], client: str
) -> None:
    answer = locked.put(b"image", **headers)
    assert answer.status_code == 200
    assert not {"authorization", "x-api-key"} & set(server.seen[-1].headers)
    assert locked.log_line(answer.headers["x-request-id"])["client"] == client
    assert KEY not in locked.log.read_text()


@pytest.mark.parametrize(
    "headers",
    [
        *({}, {"x_api_key": KEY + "x"}, {"x_api_key": KEY[:-1]}, {"x_api_key": KEY.lower()}, {"x_api_key": "default"}),
        *({"authorization": KEY}, {"authorization": f"Basic {KEY}"}, {"authorization": "Bearer "}, {"x_api_key": ""}),
        *(
            {"x_api_key": f"alice {KEY}"},
            {"x_api_key": "~.*"},
            {"x_api_key": "wrong", "authorization": f"Bearer {KEY}"},
        ),
    ],
)
def test_everything_else_is_unauthorized(locked: Gateway, server: Behind, headers: dict[str, str]) -> None:
    before = len(server.seen)
    for path in ("predictions/flowers", "v2/models/flowers/infer"):
        answer = locked.put(b"image", path, **headers)
        assert (answer.status_code, code(answer)) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == 'Bearer realm="visionserve"'
    assert locked.get("models", **headers).status_code == 401
    assert len(server.seen) == before


def test_health_the_list_of_routes_and_preflights_need_no_key(locked: Gateway) -> None:
    for path in ("livez", "readyz", "v2/health/ready", ""):
        assert locked.get(path).status_code == 200
    assert requests.options(locked.url("predictions/flowers"), timeout=30).status_code == 204
    assert locked.get("metrics").status_code == 404


# ---- pages of other origins


def test_a_page_of_a_listed_origin_may_call_and_read(locked: Gateway) -> None:
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    preflight = requests.options(locked.url("predictions/flowers"), headers=asked, timeout=30)
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    assert preflight.headers["access-control-allow-methods"] == "POST, PUT, OPTIONS"
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    for headers in ({"x_api_key": KEY}, {}):  # errors can be read too
        answer = locked.put(b"image", origin=ORIGIN, **headers)
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "x-request-id" in answer.headers["access-control-expose-headers"]
        assert "access-control-allow-methods" not in answer.headers


def test_no_other_page_may(locked: Gateway) -> None:
    for origin in ("https://page.example.org.evil.example", "http://page.example.org", "null"):
        assert "access-control-allow-origin" not in locked.put(b"image", origin=origin, x_api_key=KEY).headers


def test_any_page_may_where_any_is_listed(server: Behind, tmp_path: Path) -> None:
    with running(tmp_path, server.address, cors_origins="*") as gateway:
        assert gateway.put(b"image", origin="https://a.example").headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-origin" not in gateway.put(b"image").headers


# ---- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not installed: apt-get install openssl")
    folder = tmp_path_factory.mktemp("tls")
    made, key = folder / "tls.crt", folder / "tls.key"
    new = [program, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=gateway"]
    outputs = ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(made), "-keyout", str(key)]
    subprocess.run([*new, *outputs], check=True, capture_output=True)
    return made, key


def test_with_a_certificate_the_api_is_encrypted_health_alone_is_not_and_it_can_be_renewed(
    server: Behind, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    made, key = certificate
    port = free_ports(1)[0]
    options: dict[str, str | int | Path] = {"tls_certificate": made, "tls_key": key, "tls_port": port}
    with running(tmp_path, server.address, status=server.address, **options) as gateway:
        url = f"https://127.0.0.1:{port}/predictions/flowers"
        answer = requests.put(url, data=b"image", verify=str(made), timeout=30)
        assert answer.status_code == 200
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        clear = gateway.put(b"image")
        assert (clear.status_code, clear.json()["error"]["code"]) == (403, "https_required")
        assert "strict-transport-security" not in clear.headers
        assert gateway.get("readyz").status_code == 200
        assert not accepts(port, made, ssl.TLSVersion.TLSv1_1)
        assert accepts(port, made, ssl.TLSVersion.TLSv1_3)
        made.write_bytes(renewed(key))
        gateway.process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + 30
        while not accepts(port, made, ssl.TLSVersion.TLSv1_3):
            assert time.monotonic() < deadline, "it does not read a renewed certificate"
            time.sleep(0.1)
        mixed = requests.put(f"http://127.0.0.1:{port}/predictions/flowers", data=b"image", timeout=30)
        assert (mixed.status_code, mixed.json()["error"]["code"]) == (400, "invalid_request")


def renewed(key: Path) -> bytes:
    """Return another certificate for the same key."""
    new = ["openssl", "req", "-x509", "-key", str(key), "-days", "3", "-subj", "/CN=renewed"]
    return subprocess.run([*new, "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True).stdout


def accepts(port: int, certificate: Path, version: ssl.TLSVersion) -> bool:
    """Whether a handshake succeeds in a version of TLS; by openssl, as Python warns about the old ones."""
    flag = {ssl.TLSVersion.TLSv1_1: "-tls1_1", ssl.TLSVersion.TLSv1_3: "-tls1_3"}[version]
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", flag, "-CAfile", str(certificate)]
    done = subprocess.run([*command, "-verify_return_error"], input=b"", capture_output=True, check=False, timeout=30)
    return done.returncode == 0


# ---- the web UI


def page(seen: Seen) -> Reply:
    upgrade = seen.headers.get("upgrade", "")
    if upgrade:
        return Reply(101, b"", {"Upgrade": upgrade, "Connection": "upgrade"})
    return Reply(200, f"page {seen.path}".encode(), {})


def test_the_page_takes_every_path_that_is_not_the_services(server: Behind, tmp_path: Path) -> None:
    with behind(page) as ui, running(tmp_path, server.address, ui_url=f"http://{ui.address}") as gateway:
        assert gateway.get("").text == "page /"
        assert gateway.get("static/app.js?v=1").text == "page /static/app.js?v=1"
        assert gateway.put(b"image").json() == {"predictions": []}
        for path in ("metrics", "drain", "workflows", "models/a/b/c", "predictions", "v2/x", "ping"):
            assert gateway.get(path).status_code == 404
        asked = b"GET /_stcore/stream HTTP/1.1\r\nHost: h:1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        with gateway.connect() as connection:
            connection.sendall(asked)
            assert connection.recv(65536).startswith(b"HTTP/1.1 101 ")
        assert (ui.seen[-1].headers["connection"], ui.seen[-1].headers["host"]) == ("upgrade", "h:1")
        assert gateway.log_line(gateway.get("x", x_request_id="ui-1").headers["x-request-id"])["route"] == "ui"


def test_the_page_can_have_a_folder_and_may_be_away(server: Behind, tmp_path: Path) -> None:
    with (
        behind(page) as ui,
        running(tmp_path, server.address, ui_url=f"http://{ui.address}", ui_path="/ui/") as gateway,
    ):
        assert gateway.get("ui/a").text == "page /ui/a"
        assert requests.get(gateway.url("ui"), timeout=30, allow_redirects=False).headers["location"] == "/ui/"
        assert "routes" in gateway.get("").json()
        assert gateway.get("other").status_code == 404
    with running(tmp_path, server.address, ui_url="http://127.0.0.1:1") as gateway:
        answer = gateway.get("")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")


# ---- numbers


@pytest.mark.parametrize("end", ["lowest", "highest"])
def test_nginx_takes_every_number_that_an_option_allows(tmp_path: Path, end: str) -> None:
    seen = 0
    for option in OPTIONS:
        try:
            option.parse("no number")
        except ValueError as error:
            bounds = re.fullmatch(r"a whole number from (?P<lowest>\d+) to (?P<highest>\d+)", str(error))
        else:
            continue
        if bounds is not None:
            # A rate, without which no burst is rendered.
            options = resolve({"rate": "1", option.name: bounds[end]}, {})
            check(str(nginx()), render(options, tmp_path / option.name))
            seen += 1
    assert seen > 15


# ---- other users


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user: run the tests as root")
@pytest.mark.parametrize("user", [101, 10001])
def test_another_user_can_run_what_was_rendered_for_it(server: Behind, user: int) -> None:
    # Not below pytest's folder, which is its owner's alone.
    base = Path("/tmp") / f"gateway-test-{user}-{os.getpid()}"
    rendered, temp = base / "etc", base / "tmp"
    temp.mkdir(parents=True)
    port = free_ports(1)[0]
    try:
        for folder in (base, temp):
            os.chown(folder, user, user)
        keys = base / "keys"
        keys.write_text(f"alice:{KEY}\n")
        options = [f"--port={port}", f"--inference={server.address}", "--records=off", f"--temp={temp}"]
        command = [sys.executable, "-m", "gateway", "render", f"--out={rendered}", f"--api-keys-file={keys}", *options]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        assert (rendered / "keys.conf").stat().st_mode & 0o777 == 0o600
        for path in (rendered, *rendered.iterdir(), *temp.iterdir()):
            os.chown(path, user, user)
        rendered.chmod(0o555)
        shutil.rmtree(temp)
        temp.mkdir()
        os.chown(temp, user, user)
        answers_as(user, port, rendered, base)
    finally:
        shutil.rmtree(base)


def answers_as(user: int, port: int, rendered: Path, base: Path) -> None:
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    assert nginx is not None
    log = base / "log"
    with log.open("wb") as stream:
        os.chown(log, user, user)
        process = subprocess.Popen(
            [nginx, "-e", "stderr", "-c", str(rendered / "nginx.conf")],
            stdout=stream,
            stderr=subprocess.STDOUT,
            user=user,
            group=user,
            extra_groups=[],
            cwd="/",
        )
    try:
        body = b"x" * 2_000_000  # larger than what is kept in memory
        deadline = time.monotonic() + 30
        while True:
            try:
                url = f"http://127.0.0.1:{port}/predictions/flowers"
                assert requests.put(url, data=body, headers={"x-api-key": KEY}, timeout=30).status_code == 200
                break
            except requests.ConnectionError:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
    finally:
        process.send_signal(signal.SIGQUIT)
        assert process.wait(timeout=60) == 0
