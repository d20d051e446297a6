"""Whose address counts behind proxies, for the log and for the limits of one client."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT
from tests.e2e.gateway.gateways import NEEDS_NGINX, Behind, Gateway, behind, plain, running

pytestmark = [pytest.mark.e2e, NEEDS_NGINX]


@pytest.fixture(scope="module")
def server() -> Iterator[Behind]:
    with behind(plain) as running_server:
        yield running_server


@pytest.fixture(scope="module")
def platform(server: Behind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that trusts the networks of the image `standalone` and takes one request per second of a client."""
    trusted = re.search(r'GATEWAY_TRUSTED_PROXIES="([^"]+)"', (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    assert trusted is not None
    folder = tmp_path_factory.mktemp("platform")
    with running(folder, server.address, trusted_proxies=trusted[1], rate=1, burst=0) as gateway:
        yield gateway


def test_an_address_is_taken_from_a_trusted_proxy_and_from_nobody_else(server: Behind, tmp_path: Path) -> None:
    forwarded = {"x_forwarded_for": "198.51.100.7", "x_request_id": "far"}
    for trusted, address in (("127.0.0.0/8", "198.51.100.7"), ("10.0.0.0/8", "127.0.0.1"), ("", "127.0.0.1")):
        folder = tmp_path / address / str(len(trusted))
        folder.mkdir(parents=True)
        with running(folder, server.address, trusted_proxies=trusted) as gateway:
            gateway.put(b"image", **forwarded)
            assert gateway.log_line("far")["address"] == address


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ("198.51.100.7", "198.51.100.7"),
        # What a client has forged stays left of what the platform's proxies append.
        ("203.0.113.9, 198.51.100.8", "198.51.100.8"),
        ("10.0.0.1, 203.0.113.9, 198.51.100.9, 10.1.2.3", "198.51.100.9"),
        ("nonsense, 2001:db8::1, fd00::1", "2001:db8::1"),
        # A client in a private network is taken for a proxy: docs/platforms.md.
        ("203.0.113.9, 10.1.2.3", "203.0.113.9"),
    ],
)
def test_the_address_is_the_last_one_that_is_not_private(platform: Gateway, forwarded: str, address: str) -> None:
    request = f"client-{address.replace(':', '-')}"
    platform.put(b"image", x_forwarded_for=forwarded, x_request_id=request)
    assert platform.log_line(request)["address"] == address


def test_another_forged_address_in_each_request_does_not_lift_the_limit(platform: Gateway) -> None:
    def statuses(*addresses: str) -> list[int]:
        return [platform.put(b"image", x_forwarded_for=address).status_code for address in addresses]

    forged = statuses(*(f"203.0.113.{number}, 198.51.100.1" for number in range(1, 9)))
    assert 429 in forged
    clients = statuses(*(f"203.0.113.9, 198.51.100.{number}" for number in range(101, 109)))
    assert clients == [200] * 8
