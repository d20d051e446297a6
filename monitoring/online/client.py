"""Posting: images -> the running service -> entries of the log, several at once, in the order of the answers.

After an interruption nothing more is sent and the requests in flight are awaited, so no answer is lost.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from itertools import islice

from monitoring.online import prediction_log
from monitoring.online.labelled_images import Labelled
from monitoring.online.prediction_log import UNREADABLE, Entry
from visionserve.client import Answer, Client, ResponseError
from visionserve.client.http_messages import Call, NoReply, Reply
from visionserve.client.transports import Transport
from visionserve.files import read_regular

Properties = dict[str, float | None]
Measure = Callable[[bytes], Properties | None]


class TimedTransport:
    """Counts and times the requests of each thread's current image; waits between retries are left out."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._thread = threading.local()

    def begin(self) -> None:
        """Forget the attempts of this thread's image before."""
        self._thread.attempts, self._thread.latency_s = 0, 0.0

    @property
    def attempts(self) -> int:
        """The number of requests since `begin`."""
        return int(self._thread.attempts)

    @property
    def latency_s(self) -> float:
        """How long the last of them took."""
        return float(self._thread.latency_s)

    def send(self, call: Call, timeout_s: float) -> Reply | NoReply:
        """Send a request."""
        self._thread.attempts += 1
        started = time.perf_counter()
        try:
            return self._transport.send(call, timeout_s)
        finally:
            self._thread.latency_s = time.perf_counter() - started

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()


@dataclass(frozen=True)
class Poster:
    """Posts the images of one run to one model.

    Attributes:
        transport: the client's.
        labels: the model's own, if they are known: an image with another label is posted, but not counted in the
            accuracy.
        measure: returns the properties of an image file, or None where they cannot be measured.
    """

    client: Client
    transport: TimedTransport
    run: str
    model: str
    labels: Collection[str] | None = None
    measure: Measure | None = None

    def post(self, image: Labelled) -> Entry:
        """Post one image; ServiceUnreachable when no service answers."""
        label, accept = self._known(image)
        try:
            image_bytes = read_regular(image.file)
        except OSError:
            return Entry(self.run, prediction_log.now(), image.digest, label, None, UNREADABLE, attempts=0)
        properties = self.measure(image_bytes) if self.measure is not None else None
        when = prediction_log.now()
        self.transport.begin()
        try:
            answer = self.client.predict(image_bytes, self.model)
        except ResponseError as error:
            request_id = error.request_id or None
            attempts = self.transport.attempts
            return Entry(self.run, when, image.digest, label, error.status, error.code, request_id, attempts=attempts)
        return self._answered(Entry(self.run, when, image.digest, label, 200, accept=accept), answer, properties)

    def _known(self, image: Labelled) -> tuple[str | None, tuple[str, ...]]:
        """Return the image's label and those accepted besides, as far as the model has them."""
        right = [name for name in (image.label, *image.accept) if self.labels is None or name in self.labels]
        return (right[0], tuple(right[1:])) if right else (None, ())

    def _answered(self, entry: Entry, answer: Answer, properties: Properties | None) -> Entry:
        return replace(
            entry,
            request_id=answer.request_id,
            model=answer.model.name,
            version=answer.model.version,
            best=tuple((prediction.label, prediction.probability) for prediction in answer.predictions),
            novelty=answer.novelty,
            latency_s=round(self.transport.latency_s, 6),
            attempts=self.transport.attempts,
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
