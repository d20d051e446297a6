"""Client: asks a service, one call at a time or a bounded number at once; usable from several threads."""

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from os import PathLike

from visionserve.client import http_messages, transports
from visionserve.client.errors import ResponseError
from visionserve.client.file_result import FileResult
from visionserve.client.http_messages import DEFAULT_URL, Address, Call, Image, Protocol, Reply
from visionserve.client.ordered_map import in_order
from visionserve.client.results import Answer, Model
from visionserve.client.retry import Retries
from visionserve.client.retry_loop import Exchange
from visionserve.client.transports import Transport

_CONNECTIONS = 64


class Client:
    """Asks a service.

    with Client("http://127.0.0.1:8000") as client:
        answer = client.predict(Path("photo.jpg"))
        print(answer.best.label, answer.best.probability)

    Raises ResponseError for an error response, ServiceUnreachable when nothing answers within ``timeout_s``.
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
        transport: Transport | None = None,
    ) -> None:
        """Make a client; nothing is sent yet.

        Args:
            timeout_s: how long a call may take altogether, its retries included.
            protocol: "native" sends the file as it is, "v2" as an Open Inference tensor.
            status_url: where models and health are asked for, if not at ``url``.
        """
        self.address = Address(url.rstrip("/"), api_key, protocol, status_url and status_url.rstrip("/"))
        self.timeout_s = timeout_s
        self.retries = retries
        self._transport = transport or transports.default(_CONNECTIONS)

    def predict(
        self,
        image: Image,
        model: str = "flowers",
        top_k: int | None = None,
        *,
        version: str | None = None,
        request_id: str | None = None,
    ) -> Answer:
        """Return what an image (its bytes, or the path of its file) shows; ``top_k`` labels, by default five."""
        call = self.address.classify(image, model, version=version, top_k=top_k, request_id=request_id)
        return self.address.answer(call, self._send(call))

    def explain(
        self,
        image: Image,
        model: str = "flowers",
        top_k: int | None = None,
        *,
        version: str | None = None,
        request_id: str | None = None,
    ) -> Answer:
        """Return the same with ``heatmap``: where in the image the best label shows."""
        call = self.address.classify(image, model, version=version, top_k=top_k, explain=True, request_id=request_id)
        return self.address.answer(call, self._send(call))

    def overlay(self, image: Image, model: str = "flowers", *, version: str | None = None) -> bytes:
        """Return a PNG: what the network saw of the image, under the heatmap."""
        call = self.address.classify(image, model, version=version, explain=True, png=True)
        return http_messages.png(call, self._send(call))

    def models(self) -> list[Model]:
        """Return what is served."""
        call = self.address.models()
        return self.address.read_models(call, self._send(call))

    def model(self, name: str = "flowers") -> Model:
        """Return one model with its card."""
        call = self.address.model(name)
        return self.address.read_model(call, self._send(call))

    def ready(self) -> bool:
        """Return whether the service would answer now; asks once and never raises for a service that is not there."""
        found = self._transport.send(self.address.ask("/readyz"), self.timeout_s)
        return isinstance(found, Reply) and found.status == HTTPStatus.OK

    def predict_many(
        self,
        images: Iterable[PathLike[str]],
        model: str = "flowers",
        top_k: int | None = None,
        *,
        concurrency: int = 8,
        explain: bool = False,
    ) -> Iterator[FileResult]:
        """Ask about many files, ``concurrency`` at once; yield a FileResult each, in their order, as they come.

        ``images`` may be endless: no more of it is taken than is being asked about. A file that cannot be read or is
        refused is a FileResult with that error; only ServiceUnreachable ends everything.
        """
        ask = self.explain if explain else self.predict

        def outcome(path: PathLike[str]) -> FileResult:
            try:
                return FileResult(path, answer=ask(path, model, top_k))
            except (OSError, ResponseError) as error:
                return FileResult(path, error=error)

        with ThreadPoolExecutor(concurrency, thread_name_prefix="visionserve") as pool:
            yield from in_order(pool, outcome, images, 2 * concurrency)

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _send(self, call: Call) -> Reply:
        """Send a call, again where that may help; a prediction changes nothing, so asking twice does no harm."""
        exchange = Exchange(self.address.url, self.retries, self.timeout_s)
        while True:
            found = exchange.after(self._transport.send(call, exchange.remaining_s))
            if isinstance(found, Reply):
                return found
            time.sleep(found)
