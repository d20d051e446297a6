"""Images -> answers: several at once, so that the service can batch them; each succeeds or fails alone."""

import hashlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

from visionserve.client import Answer, Client, ResponseError

_AT_ONCE = 4
_NOT_THE_FILE = 429  # and from 500 on: the service's trouble, not the image's; trying again may help
_KEY_MISSING = (401, 403)


@dataclass(frozen=True)
class ImageFile:
    """A file that was dropped, pasted, chosen or taken by the camera."""

    name: str
    data: bytes

    @cached_property
    def digest(self) -> str:
        """SHA-256 of its bytes, hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class Answered:
    """The service's answer, and how long it took as measured here."""

    answer: Answer
    round_trip_s: float


@dataclass(frozen=True)
class Declined:
    """The reason why a file has no answer, in a sentence; ``final`` if trying again would say the same."""

    sentence: str
    final: bool


Result = Answered | Declined


def classify_all(client: Client, model: str, images: Sequence[ImageFile], version: str | None = None) -> list[Result]:
    """Classify each image, some at once; results in order. Raises ServiceUnreachable."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda image: classify(client, model, image, version), images))


def classify(client: Client, model: str, image: ImageFile, version: str | None = None) -> Result:
    """Classify one image."""
    started = time.perf_counter()
    try:
        answer = client.explain(image.data, model, version=version)
    except ResponseError as error:
        return Declined(reason(error), final=error.status < _NOT_THE_FILE and error.status not in _KEY_MISSING)
    return Answered(answer, time.perf_counter() - started)


def reason(error: ResponseError) -> str:
    """Return the service's message, as a sentence for the person at the page."""
    if error.status in _KEY_MISSING:
        return "The service needs an API key: start the page with a valid one in UI_API_KEY."
    message = error.message.strip() or f"The service answered with status {error.status}."
    sentence = message[0].upper() + message[1:]
    return sentence if sentence.endswith((".", "!", "?")) else f"{sentence}."
