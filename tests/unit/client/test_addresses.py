"""Addresses, keys, times and files that a client refuses before it sends anything, and those that it takes."""

from pathlib import Path
from typing import Any

import pytest

from tests.unit.client.conftest import IMAGE
from tests.unit.client.fake_service import serving
from visionserve.client import AsyncClient, Client, ResponseError, ServiceUnreachable
from visionserve.files import LARGEST_IMAGE


@pytest.mark.parametrize(
    "url",
    [
        "",
        " http://host",
        "127.0.0.1:8000",
        "ftp://host",
        "http://",
        "http://[::1",
        "http://host:0",
        "http://host:99999",
        "http://host:port",
        "http://host?x=1",
        "http://host#x",
        "http://host\n",
        "http://host/\x01",
        "http://host/\udcff",
    ],
)
def test_an_address_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="is not the URL of a service: it must look like http"):
        Client(url)


@pytest.mark.parametrize("make", [Client, AsyncClient])
@pytest.mark.parametrize("host", ["a..b", "..", "x" * 64, "xn--", "\uff11\uff12.0.0.1"])
def test_a_name_that_no_host_has_is_refused_at_once(make: Any, host: str) -> None:
    with pytest.raises(ValueError, match="has no valid host name"):
        make(f"http://{host}:8000")
    with pytest.raises(ValueError, match="has no valid host name"):
        make("http://host", status_url=f"http://{host}")


@pytest.mark.parametrize("rest", ["predictions/flowers", "explanations/flowers/1.0", "predictions"])
def test_the_url_of_a_model_is_not_the_services(rest: str) -> None:
    with pytest.raises(
        ValueError, match=r"is the URL of a model: give the service's, http://host/vision, and the name"
    ):
        Client(f"http://host/vision/{rest}")


def test_a_password_in_the_address_is_sent_and_never_shown(client_of: Any) -> None:
    with serving() as service:
        client_of(service.url.replace("//", "//me:secret@")).predict(IMAGE, "flowers")
    assert service.asked[0].headers["authorization"] == "Basic bWU6c2VjcmV0"
    with pytest.raises(ServiceUnreachable) as error:
        client_of("http://me:secret@127.0.0.1:1").predict(IMAGE, "flowers")
    assert "http://127.0.0.1:1" in str(error.value)
    assert "secret" not in repr(error.value)
    with pytest.raises(ValueError, match="must look like") as refused:
        Client("http://me:secret@host:port")
    assert "secret" not in str(refused.value)
    with pytest.raises(ValueError, match="a user name and an API key"):
        Client("http://me:secret@host", "key-1")


@pytest.mark.parametrize("timeout_s", [3e6, 1e300, float("inf")])
def test_a_call_may_take_any_time(client_of: Any, timeout_s: float) -> None:
    with serving() as service:
        assert client_of(service.url, timeout_s=timeout_s).predict(IMAGE, "flowers").best.label == "rose"


def test_files_that_are_no_images_are_not_sent(client_of: Any, tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(LARGEST_IMAGE + 1)
    with serving() as service:
        client = client_of(service.url)
        with pytest.raises(ResponseError, match=r"The file is empty\. \(empty_body\)"):
            client.predict(tmp_path / "empty.jpg", "flowers")
        with pytest.raises(OSError, match="Larger than 64 MiB"):
            client.predict(tmp_path / "huge.jpg", "flowers")
    assert service.asked == []
