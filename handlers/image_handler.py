"""TorchServe's edge and nothing else: rows -> requests -> one batch -> replies in order, and their metrics.

TorchServe unpacks the archive, puts it first on the path and makes one ImageHandler per worker process. What it does
to a request is noted beside each line that depends on it.
"""

import contextlib
import http
import json
import logging
import math
import os
import re
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from handlers import torchserve_worker, tracing
from handlers.log_format import OneLine
from handlers.metrics_buffer import MetricsBuffer
from visionserve import batch, forms
from visionserve import model_card as cards
from visionserve.batch import BatchResult, Reply
from visionserve.classifier import Classifier
from visionserve.errors import BundleError, ServiceError
from visionserve.model_card import ModelCard
from visionserve.request_parsing import RawRequest

# One class only: TorchServe takes the class of a handler's module, and refuses a module that defines two.

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
# Characters that would break TorchServe's metric lines: name.unit:value|#dimension:value,dimension:value|#...
_UNSAFE_IN_METRICS = re.compile(r"[^\w .'()/+-]")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
# The upper bounds of the histograms' buckets.
_BOUNDS: Mapping[str, Sequence[float]] = {
    "visionserve_decode_seconds": _SECONDS,
    "visionserve_inference_seconds": _SECONDS,
    "visionserve_total_seconds": _SECONDS,
    "visionserve_batch_size": (1, 2, 4, 8, 16, 32, 64, 128),
    "visionserve_novelty": (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99),
}
# Every status and code of a response.
_OUTCOMES = ((200, "ok"), *((error.status, error.code) for error in ServiceError.__subclasses__()))
_FAILED = 1
# The launcher's probe, answered with the worker's process id. It carries a secret that only the launcher and its
# workers share, so that no client learns anything about processes.
_PROBE_HEADER, _WORKER_HEADER = "x-visionserve-probe", "x-visionserve-worker"
_PROBE_VARIABLE = "VISIONSERVE_PROBE"
# In the launcher's temporary folder, followed by the process id: touched with each batch.
_ACTIVITY_FILE = "visionserve-worker-"
# The gateway's, while two versions are compared: the prediction as a header, for its log.
_LOG_HEADER, _PREDICTION_HEADER = "x-log-prediction", "x-prediction"
# Beside it, followed by name and version, if a bundle cannot be served here: why, so that the launcher need not wait.
_REFUSAL_FILE = "visionserve-refusal-"
# The gateway's: when the body had arrived, in seconds since 1970, and for how many more somebody waits.
_ARRIVAL_HEADER, _TIMEOUT_HEADER = "x-request-arrival", "x-request-timeout"
# GPUs by UUID or MIG name: TorchServe's Java fails on them as CUDA_VISIBLE_DEVICES, so they come under this name.
_DEVICES_VARIABLE = "VISIONSERVE_CUDA_VISIBLE_DEVICES"
logger = logging.getLogger("visionserve")


class ImageHandler:
    """Answers requests with images: `initialize` once per worker, then `handle` for each batch."""

    def __init__(self) -> None:
        self._classifier: Classifier
        self._batch_size = 1
        self._title = ""
        self._metrics: Mapping[str, Any] = {}
        self._metrics_buffer = MetricsBuffer(self._emit, _BOUNDS)
        self._tracer: tracing.Tracer | None = None
        self._probe = os.environ.get(_PROBE_VARIABLE, "")
        self._activity_file = Path(tempfile.gettempdir(), f"{_ACTIVITY_FILE}{os.getpid()}")

    def initialize(self, context: Any) -> None:
        """Load the archive and run every batch size once; a worker that returns from here is ready.

        Raises:
            SystemExit: the archive cannot be served here, for instance without a GPU. The reason is logged.
        """
        _log_to_stderr()
        with _logged("the worker cannot start", self._report_refusal):
            properties = context.system_properties
            settings = (context.model_yaml_config or {}).get("handler", {})
            _choose_devices()
            gpu, directory = properties.get("gpu_id"), Path(properties["model_dir"])
            card = ModelCard.load(directory / cards.FILE_NAME)
            self._title = f"{card.name}-{card.version}"
            if card.device == "cuda" and gpu is None:
                raise BundleError(
                    f"{card.name} was packaged for a GPU and TorchServe gave this worker none: run it where nvidia-smi "
                    "finds a GPU, or package it with --profile cpu"
                )
            self._classifier = Classifier.load(
                directory,
                int(settings.get("threads", 1)),
                int(gpu or 0),
                settings.get("runtime", "auto"),
                settings.get("decoder", "cpu"),
            )
            self._batch_size = int(properties.get("batch_size") or 1)
            # The metrics that metrics.yaml declares, by name: TorchServe keeps them by type, then by name.
            self._metrics = {name: m for group in context.metrics.cache.values() for name, m in group.items()}
            self._classifier.warm_up(self._batch_size)
            self._tracer = tracing.from_environment()
            torchserve_worker.be_quiet(context.metrics)
            torchserve_worker.read_ahead()
            torchserve_worker.keep_repeated_fields()
        for histogram in _BOUNDS:
            self._metrics_buffer.begin(histogram)
        # From 0 as well: Prometheus sees growth from a counter's second sample on.
        for status, code in _OUTCOMES:
            self._emit("visionserve_requests_total", 0, (str(status), code))
        for label in card.labels:
            self._emit("visionserve_predictions_total", 0, (label,))
        self._emit("visionserve_model_info", 1, (card.version, card.digest))

    def handle(self, rows: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        """Answer each row with bytes, a status and headers of its own; never raises for what a client sent."""
        started = time.perf_counter()
        requests = [_raw_request(row, context, index) for index, row in enumerate(rows)]
        outcome = batch.answer(self._classifier, requests, self._batch_size)
        if outcome.failure is not None:
            self._exit_if_broken(outcome.failure)
        total_s = time.perf_counter() - started
        for index, (request, reply) in enumerate(zip(requests, outcome.replies, strict=True)):
            _set_response(context, index, request, reply, outcome.inference_s, total_s)
            if _LOG_HEADER in request.headers:
                context.set_response_header(index, _PREDICTION_HEADER, _prediction(self._classifier.card, reply))
        probes = [bool(self._probe) and request.headers.get(_PROBE_HEADER) == self._probe for request in requests]
        for index in (index for index, probe in enumerate(probes) if probe and outcome.replies[index].status == 200):
            context.set_response_header(index, _WORKER_HEADER, str(os.getpid()))
        # The launcher's probes are not traffic and must not be counted as such.
        counted = tuple(reply for reply, probe in zip(outcome.replies, probes, strict=True) if not probe)
        if counted:
            self._report(counted, outcome, total_s)
        if self._tracer:
            for request, reply, probe in zip(requests, outcome.replies, probes, strict=True):
                if not probe:
                    self._trace(self._tracer, request, reply, outcome, total_s)
        self._note_activity()
        return [reply.content.body for reply in outcome.replies]

    def _report_refusal(self, error: BundleError) -> None:
        """Let the launcher see why no worker of this model can start."""
        if self._probe and self._title:
            with contextlib.suppress(OSError):
                file = self._activity_file.with_name(f"{_REFUSAL_FILE}{self._title}")
                file.write_text(" ".join(str(error).split()), encoding="utf-8")

    def _note_activity(self) -> None:
        """Let the launcher see that this worker answers, so that a busy one needs no probe to prove it."""
        if self._probe:
            with contextlib.suppress(OSError):
                self._activity_file.touch()

    def _exit_if_broken(self, failure: Exception) -> None:
        """End this worker after a CUDA error other than exhausted memory: the process cannot use the GPU again.

        TorchServe answers the batch with 500 and starts another worker in about a second; it would otherwise keep
        sending batches here, https://github.com/pytorch/serve/issues/3114.
        """
        if self._classifier.card.device == "cuda" and "memory" not in str(failure).lower():
            logger.critical("a CUDA error cannot be recovered from in this process; the worker exits")
            os._exit(_FAILED)

    def _report(self, replies: Sequence[Reply], outcome: BatchResult, total_s: float) -> None:
        """Count the batch, of its replies these alone."""
        metrics = self._metrics_buffer
        for reply in replies:
            metrics.add("visionserve_requests_total", 1, str(reply.status), reply.code)
        metrics.observe("visionserve_decode_seconds", sum(reply.decode_s for reply in replies))
        metrics.observe("visionserve_total_seconds", total_s)
        images = sum(len(reply.classifications) for reply in replies)  # without those of the launcher's probes
        if images == 0 or outcome.failure is not None:
            return
        metrics.observe("visionserve_inference_seconds", outcome.inference_s)
        metrics.observe("visionserve_batch_size", images)
        for classification in (entry for reply in replies for entry in reply.classifications):
            metrics.add("visionserve_predictions_total", 1, classification.labels[classification.best])
            metrics.observe("visionserve_novelty", classification.novelty)

    def _trace(
        self, tracer: tracing.Tracer, request: RawRequest, reply: Reply, outcome: BatchResult, total_s: float
    ) -> None:
        """Note a span for a request."""
        card = self._classifier.card
        attributes = {
            tracing.STATUS: reply.status,
            "visionserve.code": reply.code,
            "visionserve.model": card.name,
            "visionserve.version": card.version,
            "visionserve.request_id": request.id,
            "visionserve.batch_size": len(outcome.replies),
            "visionserve.batch_images": outcome.images,
            "visionserve.decode_s": reply.decode_s,
            "visionserve.inference_s": outcome.inference_s,
        }
        tracer.record("explain" if request.explain else "predict", request.headers, total_s, attributes)

    def _emit(self, name: str, value: float, labels: Sequence[str]) -> None:
        """Add to a metric of metrics.yaml, whose first dimension is always the model's name.

        A TorchServe that was started with another metrics_config has none of them, and still serves.
        """
        if name in self._metrics:
            texts = [_UNSAFE_IN_METRICS.sub("_", text) for text in (self._classifier.card.name, *labels)]
            self._metrics[name].add_or_update(value, texts)


def _choose_devices() -> None:
    """Give CUDA the devices that the launcher kept from TorchServe; before CUDA starts, as it reads them once."""
    if os.environ.get(_DEVICES_VARIABLE):
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ[_DEVICES_VARIABLE]


def _raw_request(row: Mapping[str, Any], context: Any, index: int) -> RawRequest:
    # Beside the headers this mapping holds the fields' content types, as mappings under the fields' names.
    properties = context.get_all_request_header(index)
    headers = {name.lower(): value for name, value in properties.items() if isinstance(value, str)}
    # TorchServe puts the header "explain" itself, after the client's: "True" for /explanations, "False" otherwise.
    explain = properties.get("explain") == "True"
    own_id = headers.get("x-request-id", "")
    request_id = own_id if _REQUEST_ID.fullmatch(own_id) else context.get_request_id(index) or uuid.uuid4().hex
    # /invocations passes these two among the query parameters.
    fields = {name: value for name, value in row.items() if name not in ("model_name", "model_version")}
    if len(fields) > 1:  # a form: TorchServe knows a content type of its files alone
        files = {n for n, value in properties.items() if isinstance(value, Mapping) and value.get("content-type")}
        fields = dict(forms.without_texts(fields, files))
    return RawRequest(request_id, fields, headers, explain, _expiry(headers))


def _expiry(headers: Mapping[str, str]) -> float:
    """Return when the gateway stops waiting, from its headers; what has no valid ones is waited for always."""
    try:
        arrival, timeout_s = float(headers[_ARRIVAL_HEADER]), float(headers[_TIMEOUT_HEADER])
    except (KeyError, ValueError):
        return math.inf
    return arrival + timeout_s if math.isfinite(arrival) and timeout_s >= 0 else math.inf


def _set_response(
    context: Any, index: int, request: RawRequest, reply: Reply, inference_s: float, total_s: float
) -> None:
    context.set_response_status(reply.status, http.HTTPStatus(reply.status).phrase, index)
    context.set_response_content_type(index, reply.content.type)
    # TorchServe's front end replaces this one with an id of its own; a proxy in front can restore the client's.
    context.set_response_header(index, "x-request-id", request.id)
    timings = {"decode": reply.decode_s, "inference": inference_s, "total": total_s}
    text = ", ".join(f"{name};dur={seconds * 1000:.2f}" for name, seconds in timings.items())
    context.set_response_header(index, "Server-Timing", text)
    if reply.status == http.HTTPStatus.METHOD_NOT_ALLOWED:
        context.set_response_header(index, "Allow", "POST, PUT")
    if reply.status >= http.HTTPStatus.BAD_REQUEST:
        # A proxy in front replaces TorchServe's own error bodies by status and keeps this one, which it finds here:
        # JSON in ASCII without line breaks, so it is a legal header whatever the client sent.
        context.set_response_header(index, "x-error-body", reply.content.body.decode())


def _prediction(card: ModelCard, reply: Reply) -> str:
    """Return the version, and the best label of each image with its probability, as JSON in ASCII on one line."""
    best = [classification.top(1)[0] for classification in reply.classifications]
    entries = [{"label": top.label, "probability": round(top.probability, 6)} for top in best]
    return json.dumps({"version": card.version, "best": entries}, separators=(",", ":"))


@contextlib.contextmanager
def _logged(what: str, report: Callable[[BundleError], None]) -> Iterator[None]:
    try:
        yield
    except BundleError as error:
        logger.error("%s: %s", what, error)
        report(error)
        # TorchServe's worker would print a trace of 60 lines, which says nothing about the bundle.
        raise SystemExit(_FAILED) from error
    except Exception:
        logger.exception("%s", what)
        raise


def _log_to_stderr() -> None:
    """Log to standard error, which TorchServe takes as warnings; standard output it takes as mere information."""
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(OneLine("%(levelname)s %(name)s %(message)s"))
        logger.addHandler(handler)
        logger.propagate = False
