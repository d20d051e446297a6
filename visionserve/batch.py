"""A batch of requests -> a reply for each, in order. What is wrong with one request stays its own.

raw request -> request -> prepared images --+                               +-> reply
raw request -> ServiceError ----------------|-> engine -> classifications --|-> reply
raw request -> request -> prepared images --+                               +-> reply

Where the card has a second look, the images of which the engine was unsure are prepared closer and run once more: at
most as many as the batch has, decoded in at most the same time.
"""

import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from visionserve import forms, request_parsing, responses
from visionserve.classifier import Classification, Classifier
from visionserve.errors import DeadlineExceeded, InternalError, ServiceError
from visionserve.request_parsing import RawRequest, Request
from visionserve.responses import Content

OK = "ok"
INTERNAL = "The service failed on this request; see its log."
# Sixteen of the largest images that the limits allow could hold up a batch for minutes.
DECODE_BUDGET_S = 3.0

logger = logging.getLogger(__name__)
Result = TypeVar("Result")


@dataclass(frozen=True)
class Reply:
    """What one request gets: ``code`` is "ok" or that of its error; one classification per image."""

    status: int
    code: str
    content: Content
    decode_s: float
    classifications: tuple[Classification, ...] = ()


@dataclass(frozen=True)
class BatchResult:
    """The replies to a batch of requests, in order, and the time the engine took on its images.

    ``failure`` is what stopped the engine, where something did.
    """

    replies: tuple[Reply, ...]
    images: int
    inference_s: float
    failure: Exception | None = None


@dataclass(frozen=True)
class _Parsed:
    request: Request
    parse_s: float


@dataclass(frozen=True)
class _Prepared:
    request: Request
    images: tuple[np.ndarray, ...]
    decode_s: float


def answer(classifier: Classifier, batch: Sequence[RawRequest], max_images: int) -> BatchResult:
    """Answer a batch of requests.

    Args:
        max_images: how many images the engine takes at once; requests with several may need more runs.

    Returns:
        A reply per request. Where the engine failed, every request with a usable image gets its ServiceError or an
        InternalError.
    """
    prepared = _prepare(classifier, batch)
    images = [image for entry in prepared if isinstance(entry, _Prepared) for image in entry.images]
    started = time.perf_counter()
    outcome = _classify(classifier, images, max_images)
    if classifier.card.second_look is not None and not isinstance(outcome, Exception):
        outcome = _look_again(classifier, _sources(batch, prepared), outcome, max_images)
    inference_s = time.perf_counter() - started
    failure = outcome if isinstance(outcome, Exception) else None
    remaining = iter([] if isinstance(outcome, Exception) else outcome)
    replies = tuple(
        entry if isinstance(entry, Reply) else _render(classifier, raw, entry, remaining, failure)
        for raw, entry in zip(batch, prepared, strict=True)
    )
    return BatchResult(replies, len(images), inference_s, failure)


def _prepare(classifier: Classifier, batch: Sequence[RawRequest]) -> list[_Prepared | Reply]:
    """Parse and decode every request; nvJPEG, where it is on, gets the images of all of them at once."""
    parsed = [_parse(classifier, raw) for raw in batch]
    files = [data for entry in parsed if isinstance(entry, _Parsed) for data in entry.request.images]
    started = time.perf_counter()
    ahead = iter(classifier.prepare_plain_jpegs(files))
    ahead_s = time.perf_counter() - started
    return [
        entry if isinstance(entry, Reply) else _decode(classifier, raw, entry, ahead, ahead_s)
        for raw, entry in zip(batch, parsed, strict=True)
    ]


def _parse(classifier: Classifier, raw: RawRequest) -> _Parsed | Reply:
    started = time.perf_counter()

    def attempt() -> _Parsed:
        _check_awaited(raw)
        request = request_parsing.parse(forms.unpack(raw), len(classifier.card.labels))
        return _Parsed(request, time.perf_counter() - started)

    return _guarded(attempt, raw, started)


def _decode(
    classifier: Classifier, raw: RawRequest, parsed: _Parsed, ahead: Iterator[np.ndarray | None], ahead_s: float
) -> _Prepared | Reply:
    """Take this request's images off ``ahead`` and decode those that are not there."""
    before = list(itertools.islice(ahead, len(parsed.request.images)))
    started = time.perf_counter() - parsed.parse_s - ahead_s

    def attempt() -> _Prepared:
        _check_awaited(raw)  # again: what is before it in the batch may have taken seconds
        images = tuple(_images(classifier, parsed.request, before, time.perf_counter() + DECODE_BUDGET_S))
        return _Prepared(parsed.request, images, time.perf_counter() - started)

    return _guarded(attempt, raw, started)


def _check_awaited(raw: RawRequest) -> None:
    if time.time() > raw.expires_at:
        raise DeadlineExceeded("Nobody waits for this response any longer: it was not begun.")


def _images(
    classifier: Classifier, request: Request, ahead: list[np.ndarray | None], deadline: float
) -> list[np.ndarray]:
    images: list[np.ndarray] = []
    for index, (data, pixels) in enumerate(zip(request.images, ahead, strict=True)):
        if index > 0 and time.perf_counter() > deadline:
            raise DeadlineExceeded(f"Decoding took over {DECODE_BUDGET_S:g} s: send fewer or smaller images at once.")
        try:
            images.append(classifier.prepare(data) if pixels is None else pixels)
        except ServiceError as error:
            raise error if len(request.images) == 1 else type(error)(f"Image {index}: {error.message}") from None
    return images


def _classify(classifier: Classifier, images: list[np.ndarray], max_images: int) -> list[Classification] | Exception:
    """Return a classification per image, or the engine's exception, which is logged."""
    try:
        return [
            classification
            for start in range(0, len(images), max_images)
            for classification in classifier.classify(np.stack(images[start : start + max_images]))
        ]
    except Exception as failure:
        logger.exception("the engine failed on a batch of %d images", len(images))
        return failure


def _sources(
    batch: Sequence[RawRequest], prepared: Sequence[_Prepared | Reply]
) -> list[tuple[RawRequest, bytes | bytearray]]:
    """Return the request and the file of each prepared image."""
    return [
        (raw, data)
        for raw, entry in zip(batch, prepared, strict=True)
        if isinstance(entry, _Prepared)
        for data in entry.request.images
    ]


def _look_again(
    classifier: Classifier,
    sources: Sequence[tuple[RawRequest, bytes | bytearray]],
    firsts: list[Classification],
    max_images: int,
) -> list[Classification] | Exception:
    """Return the classifications, with a second look at those that are unsure.

    An answer that nobody waits for keeps its first look, and so does what is left after `DECODE_BUDGET_S` of decoding.
    """
    deadline = time.perf_counter() + DECODE_BUDGET_S
    closer: dict[int, np.ndarray] = {}
    for index, ((raw, data), first) in enumerate(zip(sources, firsts, strict=True)):
        if classifier.unsure(first) and time.time() <= raw.expires_at and time.perf_counter() <= deadline:
            with contextlib.suppress(ServiceError):  # too large to decode twice at this moment: the first look stays
                closer[index] = classifier.prepare_closer(data, first)
    results, indices = list(firsts), list(closer)
    try:
        for start in range(0, len(indices), max_images):
            some = indices[start : start + max_images]
            seconds = classifier.look_again([firsts[index] for index in some], np.stack([closer[i] for i in some]))
            for index, second in zip(some, seconds, strict=True):
                results[index] = second
    except Exception as failure:
        logger.exception("the engine failed on a second look at %d images", len(indices))
        return failure
    return results


def _render(
    classifier: Classifier,
    raw: RawRequest,
    entry: _Prepared,
    remaining: Iterator[Classification],
    failure: Exception | None,
) -> Reply:
    """Take this request's classifications off ``remaining`` and make its reply of them."""
    classifications = tuple(itertools.islice(remaining, len(entry.images)))

    def attempt() -> Reply:
        if failure is not None:
            raise failure if isinstance(failure, ServiceError) else InternalError(INTERNAL)
        content = responses.render(entry.request, entry.images, classifications, classifier.card)
        return Reply(200, OK, content, entry.decode_s, classifications)

    return _guarded(attempt, raw, time.perf_counter() - entry.decode_s)


def _guarded(attempt: Callable[[], Result], raw: RawRequest, started: float) -> Result | Reply:
    """Return what ``attempt`` returns, or the reply to its error; what an unexpected one was is in the log alone."""
    try:
        return attempt()
    except ServiceError as expected:
        error = expected
    except Exception:
        logger.exception("request %s failed", raw.id)
        error = InternalError(INTERNAL)
    content = responses.error_response(error, raw.id, v2=request_parsing.is_v2(raw))
    return Reply(error.status, error.code, content, time.perf_counter() - started)
