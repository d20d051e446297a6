"""Posting: photographs -> the running service -> facts for the log, several at once, as they come in.

Nothing is lost by an interruption: nothing more is sent, and what is on its way is waited for.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice

from monitoring.online import prediction_log
from monitoring.online.labelled_images import Labelled
from monitoring.online.prediction_log import UNREADABLE, Photograph
from visionserve.client import Answer, Client, ResponseError

Properties = dict[str, float | None]
Measure = Callable[[bytes], Properties | None]


@dataclass(frozen=True)
class Poster:
    """Posts photographs of one run to one model.

    Attributes:
        labels: the model's own, if they are known: a photograph with another label is posted, but judged by novelty
            only.
        measure: returns the properties of an image file, or None where they cannot be had.
    """

    client: Client
    run: str
    model: str
    labels: Collection[str] | None = None
    measure: Measure | None = None

    def post(self, photograph: Labelled) -> Photograph:
        """Post one photograph; ServiceUnreachable when no service answers."""
        label = photograph.label if self.labels is None or photograph.label in self.labels else None
        try:
            data = photograph.file.read_bytes()
        except OSError:
            return Photograph(self.run, prediction_log.now(), photograph.digest, label, None, UNREADABLE)
        properties = self.measure(data) if self.measure is not None else None
        when, started = prediction_log.now(), time.perf_counter()
        try:
            answer = self.client.predict(data, self.model)
        except ResponseError as refused:
            own = refused.request_id or None
            return Photograph(self.run, when, photograph.digest, label, refused.status, refused.code, own)
        return _answered(self.run, when, photograph.digest, label, answer, time.perf_counter() - started, properties)


def _answered(
    run: str, when: str, digest: str, label: str | None, answer: Answer, latency_s: float, properties: Properties | None
) -> Photograph:
    return Photograph(
        run,
        when,
        digest,
        label,
        200,
        request_id=answer.request_id,
        model=answer.model.name,
        version=answer.model.version,
        best=tuple((found.label, found.probability) for found in answer.predictions),
        novelty=answer.novelty,
        latency_s=round(latency_s, 6),
        timings=dict(answer.timings),
        properties=properties,
    )


def post_all(
    poster: Poster, photographs: Iterable[Labelled], concurrency: int, stopped: Callable[[], bool]
) -> Iterator[Photograph]:
    """Yield what became of each photograph, in the order of the answers; none is sent once ``stopped``.

    Raises:
        ServiceUnreachable: no service answers; what was on its way has been yielded.
    """
    remaining = iter(photographs)
    failure: BaseException | None = None
    running: set[Future[Photograph]] = set()
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
