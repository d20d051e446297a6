"""What the commands need to classify images (Predictor), and a running service that does it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path, PurePath
from typing import Protocol

from visionserve.cli.exit_codes import UNREACHABLE, Stop
from visionserve.client import Answer, Client, FileResult, ResponseError, ServiceUnreachable
from visionserve.client.http_messages import BUSY, content
from visionserve.client.ordered_map import DaemonThreads, ordered_map

_KEY = "The service needs an API key: set VISIONSERVE_API_KEY, or give --api-key-file."


class Predictor(Protocol):
    """Classifies images."""

    @property
    def model(self) -> str:
        """The name of the model."""
        ...

    def predict(self, image: bytes) -> Answer:
        """Classify an encoded image; ResponseError when that fails."""
        ...

    def overlay(self, image: bytes) -> bytes:
        """Return a PNG of an encoded image with its heatmap over it; ResponseError when that fails."""
        ...

    def predict_many(self, paths: Iterable[Path]) -> Iterator[FileResult]:
        """Yield a result per file, in their order; Stop or ServiceUnreachable end it."""
        ...


@dataclass(frozen=True)
class Overlays:
    """Where the overlays of a folder's images are written: a folder of the same structure, outside that folder."""

    source: Path
    target: Path

    def __post_init__(self) -> None:
        source, target = self.source.resolve(), self.target.resolve()
        if target == source or source in target.parents:
            raise Stop(
                f"--explain {self.target} is inside {self.source}: choose a folder outside, or the next run would "
                "classify the overlays too."
            )

    def write(self, path: PurePath, png: bytes) -> None:
        """Write the overlay of an image file; Stop when that fails."""
        overlay = self.target / path.relative_to(self.source)
        write(overlay.with_name(overlay.name + ".png"), png)


@dataclass(frozen=True)
class ServicePredictor:
    """A model of a running service; without ``version``, the one that answers by default."""

    client: Client
    model: str
    top_k: int | None = None
    concurrency: int = 8
    overlays: Overlays | None = None
    version: str | None = None

    def predict(self, image: bytes) -> Answer:
        """Classify an encoded image; ResponseError when that fails."""
        return self.client.predict(image, self.model, self.top_k, version=self.version)

    def overlay(self, image: bytes) -> bytes:
        """Return a PNG of an encoded image with its heatmap over it; ResponseError when that fails."""
        return self.client.overlay(image, self.model, version=self.version)

    def predict_many(self, paths: Iterable[Path]) -> Iterator[FileResult]:
        """Yield a result per file, in their order, several at once."""
        with DaemonThreads(self.concurrency) as threads:
            yield from ordered_map(threads, self._result, paths, 2 * self.concurrency)

    def _result(self, path: Path) -> FileResult:
        try:
            image = content(path)
        except (OSError, ResponseError) as error:
            return FileResult(path, error=error)
        try:
            answer = self.predict(image)
            if self.overlays is not None:
                self.overlays.write(path, self.overlay(image))
        except ResponseError as error:
            return FileResult(path, error=error)
        except ServiceUnreachable as error:
            if error.cause != "timeout":
                raise
            # One image that the service never finishes must not keep every run from the images behind it.
            message = f"The service gave {error.reason}."
            return FileResult(path, error=ResponseError(HTTPStatus.GATEWAY_TIMEOUT, "deadline_exceeded", message))
        return FileResult(path, answer=answer)


def stop_unless_about_image(error: ResponseError) -> None:
    """Raise Stop for an error that every other image would get too: a wrong key, an unknown model, a busy service."""
    stop_for_request(error)
    if error.code in BUSY:
        raise Stop(f"The service is too busy or not ready: {error.message} Repeat the same command later.", UNREACHABLE)


def stop_for_request(error: ResponseError) -> None:
    """Raise Stop if the request is wrong whatever the image: the key, the model, an option, a proxy in between."""
    stop_for_key(error)
    if error.status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.UNPROCESSABLE_ENTITY):
        raise Stop(f"The request is rejected: {error.message}")


def stop_for_key(error: ResponseError) -> None:
    """Raise Stop if the service needs another API key, or a proxy refuses the request."""
    if error.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED or (
        not error.from_service and error.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
    ):
        raise Stop(f"{error.message} Check --url, HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY.", UNREACHABLE)
    if error.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise Stop(f"{error.message} {_KEY}")


def write(path: Path, content: bytes) -> None:
    """Write a file and the folders above it; Stop when that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise Stop(f"{path} cannot be written: {error.strerror}.") from error
