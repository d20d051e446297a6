"""Both clients behind one face, and a short time between their retries."""

import asyncio
import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.client.fake_service import FakeService
from visionserve.client import AsyncClient, Client, Retries

IMAGE = b"\xff\xd8 image"
QUICK = Retries(count=3, first_s=0.001)


class Blocking:
    """AsyncClient, called like Client, so that the same tests hold for both."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._client = AsyncClient(*arguments, **options)
        self._loop = asyncio.new_event_loop()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if inspect.isasyncgenfunction(method):
            return lambda *args, **kwargs: self._drained(method(*args, **kwargs))
        return lambda *args, **kwargs: self._loop.run_until_complete(method(*args, **kwargs))

    def _drained(self, results: Any) -> Any:
        try:
            while True:
                yield self._loop.run_until_complete(anext(results))
        except StopAsyncIteration:
            return
        finally:
            self._loop.run_until_complete(results.aclose())

    def __enter__(self) -> "Blocking":
        return self

    def __exit__(self, *_error: object) -> None:
        self._loop.run_until_complete(self._client.close())
        self._loop.close()


@pytest.fixture(params=["blocking", "async"])
def client_of(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A function that makes a client of each kind for a fake service."""
    clients: list[Any] = []

    def make(service: FakeService | str, **options: Any) -> Any:
        url = service if isinstance(service, str) else service.url
        options = {"timeout_s": 10, "retries": QUICK, **options}
        clients.append((Blocking if request.param == "async" else Client)(url, **options))
        return clients[-1]

    yield make
    for client in clients:
        with client:
            pass
