"""Posting: images -> the running service -> entries of the log, several at once, in the order of the answers.

After an interruption nothing more is sent and the requests in flight are awaited, so no answer is lost.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice

from monitoring.online import prediction_log
from monitoring.online.labelled_images import Labelled
from monitoring.online.prediction_log import UNREADABLE, Entry
from visionserve.client import Answer, Client, ResponseError

Properties = dict[str, float | None]
Measure = Callable[[bytes], Properties | None]


@dataclass(frozen=True)
class Poster:
    """Posts the images of one run to one model.

    Attributes:
        labels: the model's own, if they are known: an image with another label is posted, but not counted in the
            accuracy.
        measure: returns the properties of an image file, or None where they cannot be measured.
    """

    client: Client
    run: str
    model: str
    labels: Collection[str] | None = None
    measure: Measure | None = None

    def post(self, image: Labelled) -> Entry:
        """Post one image; ServiceUnreachable when no service answers."""
        label = image.label if self.labels is None or image.label in self.labels else None
        try:
            image_bytes = image.file.read_bytes()
        except OSError:
            return Entry(self.run, prediction_log.now(), image.digest, label, None, UNREADABLE)
        properties = self.measure(image_bytes) if self.measure is not None else None
        when, started = prediction_log.now(), time.perf_counter()
        try:
            answer = self.client.predict(image_bytes, self.model)
        except ResponseError as error:
            request_id = error.request_id or None
            return Entry(self.run, when, image.digest, label, error.status, error.code, request_id)
        return _answered(self.run, when, image.digest, label, answer, time.perf_counter() - started, properties)


def _answered(
    run: str, when: str, digest: str, label: str | None, answer: Answer, latency_s: float, properties: Properties | None
) -> Entry:
    return Entry(
        run,
        when,
        digest,
        label,
        200,
        request_id=answer.request_id,
        model=answer.model.name,
        version=answer.model.version,
        best=tuple((prediction.label, prediction.probability) for prediction in answer.predictions),
        novelty=answer.novelty,
        latency_s=round(latency_s, 6),
        timings=dict(answer.timings),
        properties=properties,
    )


def post_all(
    poster: Poster, images: Iterable[Labelled], concurrency: int, stopped: Callable[[], bool]
) -> Iterator[Entry]:
    """Yield the entry of each image, in the order of the answers; none is sent once ``stopped``.

    Raises:
        ServiceUnreachable: no service answers; the requests in flight have been yielded.
    """
    remaining = iter(images)
    failure: BaseException | None = None
    running: set[Future[Entry]] = set()
    with ThreadPoolExecutor(concurrency, thread_name_prefix="live") as pool:
        while True:
            if failure is None and not stopped():
                running |= {pool.submit(poster.post, entry) for entry in islice(remaining, concurrency - len(running))}
            if not running:
                break
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                failed = future.exception()
                if failed is None:
                    yield future.result()
                failure = failure or failed
    if failure is not None:
        raise failure
