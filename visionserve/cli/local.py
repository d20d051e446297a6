"""Classify with a bundle or an archive in this process, or on all cores, by the code that a server's worker runs.

Worker processes read, decode and classify a few images at a time, each with an engine of its own on one thread: so
decoding overlaps with the network, as it does in the service.
"""

import contextlib
import functools
import json
import math
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from http import HTTPStatus
from itertools import islice
from multiprocessing import connection
from pathlib import Path, PurePath

from visionserve import batch
from visionserve import model_card as cards
from visionserve.batch import Reply
from visionserve.classifier import Classifier
from visionserve.cli.exit_codes import Stop
from visionserve.cli.predictors import Overlays
from visionserve.client import Answer, FileResult, ResponseError, http_messages
from visionserve.client.ordered_map import ordered_map
from visionserve.client.results import read_native
from visionserve.errors import BundleError
from visionserve.files import open_regular
from visionserve.model_card import ModelCard
from visionserve.request_parsing import RawRequest

# Images a batch: what `make archive` gives the service for the same device, and for the same reasons.
_BATCH = {"cpu": 4, "cuda": 32}
GPU_WORKERS = 4  # that share a GPU


@dataclass(frozen=True)
class LocalPredictor:
    """A Predictor that runs a bundle's network here."""

    directory: Path
    top_k: int | None = None
    workers: int | None = None
    overlays: Overlays | None = None

    @property
    def model(self) -> str:
        """The name of the model, as in its card."""
        return card(self.directory).name

    def predict(self, image: bytes) -> Answer:
        """Classify an encoded image; ResponseError when it cannot be decoded."""
        return _read(_replies(_classifier(self.directory), [image], self.top_k)[0])

    def overlay(self, image: bytes) -> bytes:
        """Return a PNG of an encoded image with its heatmap over it; ResponseError when it cannot be decoded."""
        classifier = _classifier(self.directory)
        request = RawRequest("", {"body": image}, {"x-format": "png"}, explain=True)
        return _body(batch.answer(classifier, [request], 1).replies[0])

    def predict_many(self, paths: Iterable[Path]) -> Iterator[FileResult]:
        """Yield a result per file, in their order, from as many processes as there are cores."""
        details = card(self.directory)
        count = self.workers or (GPU_WORKERS if details.device == "cuda" else cores())
        context = multiprocessing.get_context("spawn")  # a fork would inherit the threads' locks, not the threads
        with ProcessPoolExecutor(count, context, _begin) as pool:
            try:
                for results in ordered_map(pool, self.classify, _chunks(paths, _BATCH[details.device]), 4 * count):
                    yield from results
            except BrokenProcessPool:
                raise Stop("A worker process was killed (out of memory?): try again with fewer --workers.") from None
            except BaseException:
                # Leaving the pool waits for the batches that have begun, and one of them may take long.
                for process in multiprocessing.active_children():
                    process.terminate()
                raise

    def classify(self, paths: Sequence[Path]) -> list[FileResult]:
        """Classify files as one batch; results in their order, also of those that cannot be read."""
        return self.classify_contents(paths, [_content(path) for path in paths])

    def load(self) -> None:
        """Load the network into this process now; later, its files are not needed any more. Stop if that fails."""
        _classifier(self.directory)

    @property
    def batch_size(self) -> int:
        """Images a batch on the model's device."""
        return _BATCH[card(self.directory).device]

    def classify_contents(
        self, paths: Sequence[PurePath], contents: Sequence[bytes | OSError | ResponseError]
    ) -> list[FileResult]:
        """Classify what was read of some files as one batch; results in their order."""
        readable = [content for content in contents if isinstance(content, bytes)]
        # A batch without images is not one that an engine takes.
        replies = iter(_replies(_classifier(self.directory), readable, self.top_k) if readable else [])
        return [
            self._result(path, content, next(replies))
            if isinstance(content, bytes)
            else FileResult(path, error=content)
            for path, content in zip(paths, contents, strict=True)
        ]

    def _result(self, path: PurePath, image: bytes, reply: Reply) -> FileResult:
        try:
            answer = _read(reply)
            if self.overlays is not None:
                self.overlays.write(path, self.overlay(image))
        except ResponseError as error:
            return FileResult(path, error=error)
        return FileResult(path, answer=answer)


@contextlib.contextmanager
def opened(source: Path) -> Iterator[Path]:
    """Yield the directory of a bundle, or of an archive that is unpacked for the time; Stop if it is neither."""
    if source.is_dir():
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="visionserve-") as folder:
        try:
            with open_regular(source) as file, zipfile.ZipFile(file) as archive:
                archive.extractall(folder)
        except (OSError, zipfile.BadZipFile) as error:
            hint = "" if source.exists() else " The name of a model of a service is given with --name."
            reason = (isinstance(error, OSError) and error.strerror) or error
            raise Stop(f"{source} is neither a bundle's folder nor an archive (.mar): {reason}.{hint}") from error
        yield Path(folder)


def cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many processes to start: the cores of the affinity, or of the container's quota, a begun one included.

    The launcher counts alike (launcher/resources.py, which also reads nested groups); a contract test compares them.
    """
    available = float(len(os.sched_getaffinity(0)))
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        with contextlib.suppress(OSError, ValueError):
            quota, period = " ".join((cgroup / name).read_text() for name in names).split()
            if int(quota) > 0:
                available = min(available, int(quota) / int(period))
    return max(1, math.ceil(available))


def _chunks(paths: Iterable[Path], size: int) -> Iterator[list[Path]]:
    remaining = iter(paths)
    while chunk := list(islice(remaining, size)):
        yield chunk


def _begin() -> None:
    """Prepare a worker process: Ctrl-C is handled by the parent, and the worker ends when the parent does.

    Decoders in C write warnings about damaged files to file descriptor 2; the rows say so. Python's stderr stays.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device, not a path of ours
        os.dup2(nowhere.fileno(), 2)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


@functools.cache
def _classifier(directory: Path) -> Classifier:
    """Return the classifier of this process; loaded at first use, so that an error in it reaches the caller."""
    try:
        return Classifier.load(directory)
    except BundleError as error:
        raise Stop(f"The model cannot be used here: {error}.") from error


def card(directory: Path) -> ModelCard:
    """Return a bundle's card; Stop when it cannot be used."""
    try:
        return ModelCard.load(directory / cards.FILE_NAME)
    except BundleError as error:
        raise Stop(f"The model cannot be used here: {error}.") from error


def _content(path: Path) -> bytes | OSError | ResponseError:
    try:
        return http_messages.content(path)
    except (OSError, ResponseError) as error:
        return error


def _replies(classifier: Classifier, images: Sequence[bytes], top_k: int | None) -> Sequence[Reply]:
    """Return the replies that a server would send to these bodies."""
    headers = {} if top_k is None else {"x-top-k": str(top_k)}
    return batch.answer(classifier, [RawRequest("", {"body": image}, headers) for image in images], len(images)).replies


def _body(reply: Reply) -> bytes:
    if reply.status != HTTPStatus.OK:
        error = json.loads(reply.content.body)["error"]
        raise ResponseError(reply.status, error["code"], error["message"])
    return reply.content.body


def _read(reply: Reply) -> Answer:
    content = json.loads(_body(reply))
    if "model" not in content:  # the file is a request in JSON with several images
        raise ResponseError(415, "unsupported_image", "This file is a request in JSON, not an image.")
    return read_native(content, "", {})
