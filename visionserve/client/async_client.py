"""AsyncClient: Client for asyncio, with many calls at once in one thread."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from http import HTTPStatus
from os import PathLike

from visionserve.client import http_messages
from visionserve.client.errors import ResponseError
from visionserve.client.http_messages import Address, Call, Image, Protocol, Reply
from visionserve.client.results import Answer, FileResult, Model
from visionserve.client.retry import Retries, RetryLoop
from visionserve.client.transports import AsyncHttpxTransport, Tls
from visionserve.client.urls import DEFAULT_URL

_CONNECTIONS = 64


class AsyncClient:
    """Calls a service; methods and errors are those of Client.

    async with AsyncClient("http://127.0.0.1:8000") as client:
        answer = await client.predict(Path("photo.jpg"))
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        api_key: str | None = None,
        timeout_s: float = 30,
        retries: Retries = Retries(),  # noqa: B008 - frozen
        *,
        protocol: Protocol = "native",
        status_url: str | None = None,
        cacert: PathLike[str] | str | None = None,
        insecure: bool = False,
    ) -> None:
        """Create a client; sends nothing yet. The arguments are those of Client."""
        self.address = Address(url.rstrip("/"), api_key, protocol, status_url and status_url.rstrip("/"))
        self.timeout_s = timeout_s
        self.retries = retries
        self._transport = AsyncHttpxTransport(_CONNECTIONS, self.address.urls, Tls(cacert, insecure))
        self._only_model: str | None = None

    async def predict(
        self,
        image: Image,
        model: str | None = None,
        top_k: int | None = None,
        *,
        version: str | None = None,
        request_id: str | None = None,
    ) -> Answer:
        """Classify an image, its bytes or the path of its file; ``top_k`` labels, by default five."""
        call = self.address.classify(
            image, await self._name(model), version=version, top_k=top_k, request_id=request_id
        )
        return self.address.answer(call, await self._send(call))

    async def explain(
        self,
        image: Image,
        model: str | None = None,
        top_k: int | None = None,
        *,
        version: str | None = None,
        request_id: str | None = None,
    ) -> Answer:
        """Classify an image and return ``heatmap`` too: which parts of it support the best label."""
        call = self.address.classify(
            image, await self._name(model), version=version, top_k=top_k, explain=True, request_id=request_id
        )
        return self.address.answer(call, await self._send(call))

    async def overlay(self, image: Image, model: str | None = None, *, version: str | None = None) -> bytes:
        """Return a PNG: what the network saw of the image, with the heatmap over it."""
        call = self.address.classify(image, await self._name(model), version=version, explain=True, png=True)
        return http_messages.png(call, await self._send(call))

    async def models(self) -> list[Model]:
        """Return every served version of every model."""
        call = self.address.models()
        return self.address.read_models(call, await self._send(call))

    async def model(self, name: str | None = None, version: str | None = None) -> Model:
        """Return one model with its card, by default the version that answers."""
        call = self.address.model(await self._name(name), version)
        return self.address.read_model(call, await self._send(call))

    async def ready(self) -> bool:
        """Return whether the service can answer now; sends one request and returns False if no service is there."""
        reply = await self._transport.send(self.address.status("/readyz"), self.timeout_s)
        return isinstance(reply, Reply) and reply.status == HTTPStatus.OK

    async def predict_many(
        self,
        images: Iterable[PathLike[str]],
        model: str | None = None,
        top_k: int | None = None,
        *,
        concurrency: int = 8,
        explain: bool = False,
    ) -> AsyncIterator[FileResult]:
        """Classify many files, ``concurrency`` at once; yield a FileResult each, in their order, as they come."""
        call = self.explain if explain else self.predict
        free = asyncio.Semaphore(concurrency)

        async def classify(path: PathLike[str]) -> FileResult:
            async with free:
                try:
                    return FileResult(path, answer=await call(path, model, top_k))
                except (OSError, ResponseError) as error:
                    return FileResult(path, error=error)

        waiting: deque[asyncio.Task[FileResult]] = deque()
        try:
            for path in images:
                waiting.append(asyncio.create_task(classify(path)))
                if len(waiting) >= 2 * concurrency:
                    yield await waiting.popleft()
            while waiting:
                yield await waiting.popleft()
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    async def _name(self, model: str | None) -> str:
        if model is None and self._only_model is None:
            self._only_model = http_messages.only_model(await self.models())
        return model or self._only_model or ""

    async def _send(self, call: Call) -> Reply:
        loop = RetryLoop(self.address.url, self.retries, self.timeout_s)
        while not isinstance(step := loop.after(await self._transport.send(call, loop.remaining_s)), Reply):
            await asyncio.sleep(step)
        return step
