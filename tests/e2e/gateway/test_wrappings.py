"""The same image in many wrappings, byte by byte as clients write them, at the gateway and at TorchServe's own port."""

import base64
import gzip
import io
import json
import re
import socket
import subprocess
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pillow_heif
import pytest
from PIL import Image

from tests.e2e.clients.test_cli import COMMAND
from tests.e2e.conftest import E2E, Service
from tests.e2e.gateway.gateways import NEEDS_NGINX, Gateway, running
from tests.unit.visionserve.formats import deep_images
from visionserve.client import Client, GrpcClient
from visionserve.images import decode

pytestmark = [*E2E, NEEDS_NGINX]

TIMEOUT_S = 60
OK = "200 ok"


@dataclass(frozen=True)
class Wrapping:
    """A request without its first line and Host; what it gets at the gateway, and directly where that differs."""

    head: bytes
    body: bytes
    expected: str = OK
    direct: str = ""
    images: int = 1
    version: str = "1.1"
    path: str = "predictions/flowers"
    seen: list[bytes] = field(default_factory=list)


@pytest.fixture(scope="module")
def gateway(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    ports = {
        name: f"127.0.0.1:{service.ports[f'{port}_port']}"
        for name, port in (("status", "status"), ("records", "access"))
    }
    folder = tmp_path_factory.mktemp("gateway")
    with running(folder, f"127.0.0.1:{service.ports['port']}", answer_timeout_s=45, **ports) as running_server:
        yield running_server


def send(port: int, wrapping: Wrapping) -> tuple[bytes, bytes]:
    """Return head and body of the response; of a request that expects 100, what came before its body is in ``seen``."""
    start = f"POST /{wrapping.path} HTTP/{wrapping.version}\r\nHost: x\r\n".encode() + wrapping.head + b"\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as connection:
        connection.sendall(start)
        response = b""
        if b"Expect:" in wrapping.head:
            response = connection.recv(1 << 16)
            wrapping.seen.append(response)
            response = response.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not response:
            connection.sendall(wrapping.body)
        while not (match := re.search(rb"(?si)^(.*?)\r\n\r\n(.*)", response)) or len(match[2]) < length(match[1]):
            received = connection.recv(1 << 16)
            assert received, response
            response += received
    return match[1], match[2]


def length(head: bytes) -> int:
    match = re.search(rb"(?i)content-length: *(\d+)", head)
    return int(match[1]) if match else 0


def outcome(port: int, wrapping: Wrapping) -> tuple[str, int]:
    """Return status and code of the response, and how many images it answers."""
    head, body = send(port, wrapping)
    content = json.loads(body)
    error = content.get("error", content)
    code = content.get("code", "") if isinstance(error, str) else error.get("code", "ok")
    return f"{int(head.split()[1])} {code}", body.count(b'"novelty"')


def sized(head: bytes, body: bytes) -> bytes:
    return head + b"Content-Length: %d\r\n" % len(body)


def chunked(body: bytes, trailer: bytes = b"") -> bytes:
    chunks = [body[start : start + 1000] for start in range(0, len(body), 1000)]
    return b"".join(b"%x;a=b\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n" + trailer + b"\r\n"


def wrappings(image: bytes) -> dict[str, Wrapping]:
    text = base64.b64encode(image).decode()
    v1 = json.dumps({"instances": [{"b64": text}]})
    part = b'Content-Disposition: form-data; name="file"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n' + image
    comment = b'Content-Disposition: form-data; name="comment"\r\n\r\na rose'
    made: dict[str, Wrapping] = {}

    def plain(name: str, content_type: str | None, body: bytes = image, **more: Any) -> None:
        made[name] = Wrapping(
            sized(f"Content-Type: {content_type}\r\n".encode() if content_type else b"", body), body, **more
        )

    def encoded(name: str, encoding: str, body: bytes, expected: str = OK) -> None:
        made[name] = Wrapping(sized(f"Content-Encoding: {encoding}\r\n".encode(), body), body, expected)

    def form(name: str, *parts: bytes, kind: str = "form-data", before: bytes = b"", **more: Any) -> None:
        body = before + b"".join(b"--B\r\n" + part + b"\r\n" for part in parts) + b"--B--\r\n"
        head = sized(f"Content-Type: multipart/{kind}; boundary=B\r\n".encode(), body)
        made[f"form-{name}"] = Wrapping(head, body, **more)

    for content_type in (
        None,
        "IMAGE/JPEG",
        "image/jpeg; charset=binary;",
        "image/png",
        "text/plain; charset=x",
        ";",
        "*/*",
    ):
        plain(f"type-{content_type}", content_type)
    plain("type-json", "application/json", expected="400 invalid_request")
    plain("type-form-without-boundary", "multipart/form-data")
    plain("type-curl", "application/x-www-form-urlencoded", direct="500 500")
    plain(
        "url-encoded",
        "application/x-www-form-urlencoded",
        f"top_k=1&i={quote(f'data:image/jpeg;base64,{text}', safe='')}".encode(),
    )
    plain("data-url", "text/plain", f"data:image/jpeg;base64,{text}".encode())
    plain("base64", "text/plain", text.encode(), expected="415 unsupported_image")
    for encoding in ("utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-32-le"):
        plain(f"json-{encoding}", None, v1.encode(encoding))
    encoded("gzip-members", "gzip", gzip.compress(image[:99]) + gzip.compress(image[99:]))
    encoded("x-gzip", "X-Gzip", gzip.compress(image))
    encoded("deflate", "deflate", zlib.compress(image))
    encoded("raw-deflate", "deflate", zlib.compress(image, wbits=-15))
    encoded("identity", "identity", image)
    encoded("gzip-gzip", "gzip, gzip", gzip.compress(gzip.compress(image)), "415 unsupported_encoding")
    form("two", part, part, images=2)
    form("texts", comment, part, comment)
    form("mixed", part, kind="mixed")
    form("folded", part.replace(b"; name", b";\r\n name"), direct="500 500")
    form("no-name", part.replace(b'name="file"; ', b""), direct="500 500")
    form("preamble", part, before=b"This is a message.\r\n", direct="400 invalid_request")
    form("file-name-of-rfc-5987", part.replace(b'filename="a.jpg"', b"filename*=UTF-8''%e2%82%ac.jpg"))
    form("empty", part.removesuffix(image), expected="400 empty_body")
    made["chunked"] = Wrapping(
        b"Transfer-Encoding: Chunked\r\nTrailer: X\r\n", chunked(image, b"X: 1\r\nContent-Length: 5\r\n")
    )
    made["http-1.0"] = Wrapping(sized(b"", image), image, version="1.0")
    made["no-length"] = Wrapping(b"", b"", "400 empty_body")
    expect = b"Expect: 100-continue\r\n"
    made["expect"] = Wrapping(sized(expect, image), image)
    made["expect-unknown-model"] = Wrapping(
        sized(expect, image), image, "404 not_found", "404 404", path="predictions/nothing"
    )
    return made


NAMES = tuple(wrappings(b"image"))


@pytest.mark.parametrize("name", NAMES)
def test_a_wrapping_is_undone_or_refused_by_both_ports(
    service: Service, gateway: Gateway, photograph: bytes, name: str
) -> None:
    wrapping = wrappings(photograph)[name]
    expected = wrapping.expected, wrapping.images if wrapping.expected == OK else 0
    assert outcome(gateway.port, wrapping) == expected
    direct = (wrapping.direct, 0) if wrapping.direct else expected
    assert outcome(service.ports["port"], wrapping) == direct
    assert all(seen.startswith(b"HTTP/1.1 100 Continue") for seen in wrapping.seen)


def test_what_is_too_large_is_refused_before_its_body_is_sent(gateway: Gateway) -> None:
    head = b"Expect: 100-continue\r\nContent-Length: 30000000\r\n"
    assert outcome(gateway.port, Wrapping(head, b"")) == ("413 image_too_large", 0)


DEEP = ("10-turned-1.avif", "10-gain-map.avif", "10-sequence.avif", "12-alpha.heic", "10-grey-full.heic")


@pytest.fixture(scope="module", params=["heic", "avif", *DEEP])
def phone_image(request: pytest.FixtureRequest, photograph: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image as phones write it, lying down with an orientation that turns it upright, or of 10 or 12 bits."""
    path: Path = tmp_path_factory.mktemp("phone") / f"image.{request.param.rpartition('.')[2]}"
    if request.param in DEEP:
        path.write_bytes(deep_images.read(request.param))
        return path
    image = Image.open(io.BytesIO(photograph))
    if request.param == "heic":
        pillow_heif.from_pillow(image).save(path, quality=90)
    else:
        exif = Image.Exif()
        exif[0x0112] = 6
        image.transpose(Image.Transpose.ROTATE_90).save(path, "AVIF", quality=90, speed=10, exif=exif.tobytes())
    return path


def test_a_phones_image_is_answered_alike_by_every_way_in(
    service: Service, gateway: Gateway, phone_image: Path
) -> None:
    data = phone_image.read_bytes()
    expected = service.put(data).json()["predictions"]
    decoded = io.BytesIO()
    Image.fromarray(decode(data)).save(decoded, "PNG")
    assert service.put(decoded.getvalue()).json()["predictions"] == expected, (
        "the library decodes it as the service does"
    )
    part = {"file": (phone_image.name, data)}
    v1 = {"instances": [{"b64": base64.b64encode(data).decode()}]}
    assert gateway.put(data).json()["predictions"] == expected
    assert gateway.post(files=part).json()["predictions"] == expected
    assert gateway.post(json=v1).json()["predictions"][0]["predictions"] == expected
    assert gateway.put(data, "explanations/flowers?format=png").content.startswith(b"\x89PNG")
    with Client(gateway.url("").rstrip("/")) as client, GrpcClient(f"127.0.0.1:{service.ports['grpc_port']}") as grpc:
        for answer in (client.predict(phone_image), grpc.predict(data, "flowers")):
            assert [prediction.probability for prediction in answer.predictions] == [p["probability"] for p in expected]
    rows = predict(gateway, phone_image.parent, "--output", "-")
    assert json.loads(rows)["probability"] == expected[0]["probability"]
    assert f"{expected[0]['label']} " in predict(gateway, "-", standard_input=data)


def predict(gateway: Gateway, *arguments: str | Path, standard_input: bytes = b"") -> str:
    command = [COMMAND, "predict", *arguments, "--url", gateway.url("")]
    return subprocess.run(
        command, input=standard_input, check=True, capture_output=True, timeout=TIMEOUT_S
    ).stdout.decode()
