"""Client: calls a service, one request at a time or a bounded number at once; usable from several threads."""

import time
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from os import PathLike

from visionserve.client import http_messages
from visionserve.client.errors import ResponseError
from visionserve.client.http_messages import Address, Call, Image, Protocol, Reply
from visionserve.client.ordered_map import DaemonThreads, ordered_map
from visionserve.client.results import Answer, FileResult, Model
from visionserve.client.retry import Retries, RetryLoop
from visionserve.client.transports import HttpxTransport, Tls, Transport
from visionserve.client.urls import DEFAULT_URL

CONNECTIONS = 64


class Client:
    """Calls a service.

    with Client("http://127.0.0.1:8000") as client:
        answer = client.predict(Path("photo.jpg"))
        print(answer.best.label, answer.best.probability)

    A call without ``model`` uses the only served model; ValueError if there are several. Raises ResponseError for an
    error response, ServiceUnreachable if no response comes within ``timeout_s``.
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
        transport: Transport | None = None,
    ) -> None:
        """Create a client; sends nothing yet.

        Args:
            timeout_s: how long a call may take altogether, its retries included.
            protocol: "native" sends the file as it is, "v2" as an Open Inference tensor.
            status_url: where models and health are reported, if not at ``url``.
            cacert: a PEM file with the certificate authority of an https service; default: SSL_CERT_FILE, else certifi.
            insecure: do not check the certificate.

        Raises:
            ValueError: a URL, the API key, the certificate file or a proxy of the environment is invalid.
        """
        self.address = Address(url.rstrip("/"), api_key, protocol, status_url and status_url.rstrip("/"))
        self.timeout_s = timeout_s
        self.retries = retries
        self._transport = transport or HttpxTransport(CONNECTIONS, self.address.urls, Tls(cacert, insecure))
        self._only_model: str | None = None

    def predict(
        self,
        image: Image,
        model: str | None = None,
        top_k: int | None = None,
        *,
        version: str | None = None,
        request_id: str | None = None,
    ) -> Answer:
        """Classify an image, its bytes or the path of its file; ``top_k`` labels, by default five."""
        call = self.address.classify(image, self._name(model), version=version, top_k=top_k, request_id=request_id)
        return self.address.answer(call, self._send(call))

    def explain(
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
            image, self._name(model), version=version, top_k=top_k, explain=True, request_id=request_id
        )
        return self.address.answer(call, self._send(call))

    def overlay(self, image: Image, model: str | None = None, *, version: str | None = None) -> bytes:
        """Return a PNG: what the network saw of the image, with the heatmap over it."""
        call = self.address.classify(image, self._name(model), version=version, explain=True, png=True)
        return http_messages.png(call, self._send(call))

    def models(self) -> list[Model]:
        """Return every served version of every model."""
        call = self.address.models()
        return self.address.read_models(call, self._send(call))

    def model(self, name: str | None = None, version: str | None = None) -> Model:
        """Return one model with its card, by default the version that answers."""
        call = self.address.model(self._name(name), version)
        return self.address.read_model(call, self._send(call))

    def ready(self) -> bool:
        """Return whether the service can answer now; sends one request and returns False if no service is there."""
        reply = self._transport.send(self.address.status("/readyz"), self.timeout_s)
        return isinstance(reply, Reply) and reply.status == HTTPStatus.OK

    def predict_many(
        self,
        images: Iterable[PathLike[str]],
        model: str | None = None,
        top_k: int | None = None,
        *,
        concurrency: int = 8,
        explain: bool = False,
    ) -> Iterator[FileResult]:
        """Classify many files, ``concurrency`` at once; yield a FileResult each, in their order, as they come.

        ``images`` may be endless: no more of it is read than is being sent. A file that cannot be read or classified
        is a FileResult with that error; only ServiceUnreachable ends everything.
        """
        call = self.explain if explain else self.predict

        def classify(path: PathLike[str]) -> FileResult:
            try:
                return FileResult(path, answer=call(path, model, top_k))
            except (OSError, ResponseError) as error:
                return FileResult(path, error=error)

        with DaemonThreads(concurrency) as threads:
            yield from ordered_map(threads, classify, images, 2 * concurrency)

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _name(self, model: str | None) -> str:
        """Return ``model``, by default the only one that is served; ValueError if there are several."""
        if model is None and self._only_model is None:
            self._only_model = http_messages.only_model(self.models())
        return model or self._only_model or ""

    def _send(self, call: Call) -> Reply:
        """Send a call, again where that may help; a prediction changes nothing, so sending it twice does no harm."""
        loop = RetryLoop(self.address.url, self.retries, self.timeout_s)
        while not isinstance(step := loop.after(self._transport.send(call, loop.remaining_s)), Reply):
            time.sleep(step)
        return step
