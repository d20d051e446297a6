"""Photographs -> answers: several at once, so that the service can batch them; none hurts another."""

import hashlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

from visionserve.client import Answer, Client, ResponseError

_AT_ONCE = 4
_NOT_THE_FILE = 429  # and from 500 on: the service's trouble, not the photograph's; asking again may help
_KEY_MISSING = (401, 403)


@dataclass(frozen=True)
class Photograph:
    """A file that somebody dropped, pasted or took."""

    name: str
    data: bytes

    @cached_property
    def digest(self) -> str:
        """SHA-256 of its bytes, hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class Answered:
    """The service's answer, and how long it took as seen from here."""

    answer: Answer
    round_trip_s: float


@dataclass(frozen=True)
class Declined:
    """Why there is no answer, in a sentence; ``final`` where asking again would say the same."""

    sentence: str
    final: bool


FileResult = Answered | Declined


def ask_all(client: Client, model: str, photographs: Sequence[Photograph]) -> list[FileResult]:
    """Ask about each photograph, some at once; results in order. Raises ServiceUnreachable."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda photograph: ask(client, model, photograph), photographs))


def ask(client: Client, model: str, photograph: Photograph) -> FileResult:
    """Ask about one photograph."""
    started = time.perf_counter()
    try:
        answer = client.explain(photograph.data, model)
    except ResponseError as refused:
        return Declined(reason(refused), final=refused.status < _NOT_THE_FILE and refused.status not in _KEY_MISSING)
    return Answered(answer, time.perf_counter() - started)


def reason(refused: ResponseError) -> str:
    """Return what the service said, as a sentence for whoever looks at the page."""
    if refused.status in _KEY_MISSING:
        return "The service wants an API key: start the page with a valid one in UI_API_KEY."
    message = refused.message.strip() or f"The service refused with status {refused.status}."
    sentence = message[0].upper() + message[1:]
    return sentence if sentence.endswith((".", "!", "?")) else f"{sentence}."
