"""Asking: what the commands need of whoever answers photographs, and the service as one who does."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Protocol

from visionserve.cli.exit_codes import UNREACHABLE, Stop
from visionserve.client import Answer, Client, FileResult, ResponseError
from visionserve.client.ordered_map import in_order
from visionserve.client.retry import RETRIED

_KEY = "The service wants an API key: set VISIONSERVE_API_KEY, or give --api-key-file."


class Asker(Protocol):
    """Answers photographs."""

    def predict(self, image: bytes) -> Answer:
        """Return what an encoded image shows; ResponseError when it is none."""
        ...

    def overlay(self, image: bytes) -> bytes:
        """Return a PNG of an encoded image under its heatmap; ResponseError when it is none."""
        ...

    def predict_many(self, paths: Iterable[Path]) -> Iterator[FileResult]:
        """Yield an outcome per file, in their order; Stop or ServiceUnreachable end it."""
        ...


@dataclass(frozen=True)
class Overlays:
    """Where the overlays of a folder's photographs go: a folder of the same shape."""

    source: Path
    target: Path

    def write(self, path: Path, png: bytes) -> None:
        """Write the overlay of a photograph beside those of its neighbours; Stop when there is no room."""
        place = self.target / path.relative_to(self.source)
        write(place.with_name(place.name + ".png"), png)


@dataclass(frozen=True)
class Remote:
    """A model of a running service."""

    client: Client
    model: str
    top_k: int | None = None
    concurrency: int = 8
    overlays: Overlays | None = None

    def predict(self, image: bytes) -> Answer:
        """Return what an encoded image shows; ResponseError when it is none."""
        return self.client.predict(image, self.model, self.top_k)

    def overlay(self, image: bytes) -> bytes:
        """Return a PNG of an encoded image under its heatmap; ResponseError when it is none."""
        return self.client.overlay(image, self.model)

    def predict_many(self, paths: Iterable[Path]) -> Iterator[FileResult]:
        """Yield an outcome per file, in their order, several being asked about at once."""
        with ThreadPoolExecutor(self.concurrency) as pool:
            yield from in_order(pool, self._outcome, paths, 2 * self.concurrency)

    def _outcome(self, path: Path) -> FileResult:
        try:
            image = path.read_bytes()
        except OSError as error:
            return FileResult(path, error=error)
        try:
            answer = self.predict(image)
            if self.overlays is not None:
                self.overlays.write(path, self.overlay(image))
        except ResponseError as error:
            return FileResult(path, error=error)
        return FileResult(path, answer=answer)


def stop_unless_about_photograph(error: ResponseError) -> None:
    """Raise Stop for what every other photograph would get too: a wrong key, no such model, a busy service."""
    if error.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise Stop(f"{error.message} {_KEY}")
    if error.status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.UNPROCESSABLE_ENTITY):
        raise Stop(f"The service does not take this request: {error.message}")
    if error.status in RETRIED:
        raise Stop(
            f"The service is too busy or not ready: {error.message} Give the same command again later.", UNREACHABLE
        )


def write(path: Path, content: bytes) -> None:
    """Write a file and the folders above it; Stop when that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise Stop(f"{path} cannot be written: {error.strerror}.") from error
