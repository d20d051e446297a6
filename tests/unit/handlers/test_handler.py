import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import yaml
from PIL import Image

from handlers.image_handler import ImageHandler
from tests.unit.conftest import TinyBundle
from visionserve.classifier import Classification, Classifier
from visionserve.errors import BundleError
from visionserve.model_card import ModelCard

METRICS = Path(__file__).parents[3] / "metrics.yaml"


class FakeMetric:
    """Takes what TorchServe's metric takes, and refuses dimensions that metrics.yaml does not declare."""

    def __init__(self, dimensions: list[str]) -> None:
        self.dimensions = dimensions
        self.values: list[tuple[float, dict[str, str]]] = []

    def add_or_update(self, value: float, dimension_values: list[str]) -> None:
        self.values.append((value, dict(zip(self.dimensions, dimension_values, strict=True))))


class FakeContext:
    """What TorchServe gives a handler, as far as ours uses it."""

    def __init__(self, directory: Path, gpu: int | None = None, batch_size: int = 4) -> None:
        self.system_properties = {"model_dir": str(directory), "gpu_id": gpu, "batch_size": batch_size}
        self.model_yaml_config = {"batchSize": batch_size, "handler": {"threads": 1}}
        declared = yaml.safe_load(METRICS.read_text())["model_metrics"]
        self.cache = {
            kind: {entry["name"]: FakeMetric(entry["dimensions"]) for entry in entries}
            for kind, entries in declared.items()
        }
        self.metrics = SimpleNamespace(cache=self.cache)
        self.requests: list[dict[str, Any]] = []
        self.statuses: dict[int, tuple[int, str]] = {}
        self.headers: dict[int, dict[str, str]] = defaultdict(dict)

    def get_all_request_header(self, index: int) -> dict[str, Any]:
        return self.requests[index]

    def get_request_id(self, index: int) -> str | None:
        return f"server-{index}"

    def set_response_status(self, code: int, phrase: str, idx: int) -> None:
        self.statuses[idx] = (code, phrase)

    def set_response_content_type(self, index: int, value: str) -> None:
        self.headers[index]["content-type"] = value

    def set_response_header(self, index: int, name: str, value: str) -> None:
        self.headers[index][name] = value

    def values(self, name: str) -> list[tuple[float, dict[str, str]]]:
        return next(group[name].values for group in self.cache.values() if name in group)

    def sums(self, name: str, *dimensions: str) -> dict[tuple[str, ...], float]:
        totals: dict[tuple[str, ...], float] = defaultdict(float)
        for value, entry in self.values(name):
            totals[tuple(entry[dimension] for dimension in dimensions)] += value
        return dict(totals)


@pytest.fixture
def context(tiny: TinyBundle) -> FakeContext:
    return FakeContext(tiny.directory)


@pytest.fixture
def handler(context: FakeContext) -> ImageHandler:
    made = ImageHandler()
    made.initialize(context)
    return made


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (17, 11), (200, 30, 90)).save(buffer, "PNG")
    return buffer.getvalue()


def ask(handler: ImageHandler, context: FakeContext, *requests: tuple[dict[str, Any], dict[str, Any]]) -> list[bytes]:
    context.requests = [{"explain": "False", **headers} for _, headers in requests]
    return handler.handle([row for row, _ in requests], context)


def test_a_get_is_told_how_to_send_an_image(handler: ImageHandler, context: FakeContext) -> None:
    (body,) = ask(handler, context, ({}, {"accept": "text/html"}))
    assert context.statuses[0] == (405, "Method Not Allowed")
    assert context.headers[0]["Allow"] == "POST, PUT"
    assert json.loads(body)["error"]["message"] == "Send an image with POST or PUT, for instance: curl -T photo.jpg URL"


def test_rows_get_their_own_status_type_and_headers_in_order(handler: ImageHandler, context: FakeContext) -> None:
    answers = ask(
        handler,
        context,
        ({"body": bytearray(png())}, {}),
        ({"body": b"no image"}, {"X-Request-Id": "mine.1"}),
        ({"body": png()}, {"explain": "True", "x-format": "png"}),
        ({"body": b""}, {"X-Request-Id": "not mine\r\n"}),
    )
    assert context.statuses == {
        0: (200, "OK"),
        1: (415, "Unsupported Media Type"),
        2: (200, "OK"),
        3: (400, "Bad Request"),
    }
    assert [context.headers[index]["content-type"] for index in range(4)] == [
        "application/json",
        "application/json",
        "image/png",
        "application/json",
    ]
    ids = [context.headers[index]["x-request-id"] for index in range(4)]
    assert ids == ["server-0", "mine.1", "server-2", "server-3"]
    assert json.loads(answers[1])["request_id"] == "mine.1"
    assert json.loads(answers[3])["request_id"] == "server-3"
    assert all(isinstance(answer, bytes) for answer in answers)
    assert context.headers[0]["Server-Timing"].startswith("decode;dur=")


def test_only_errors_repeat_their_body_in_a_header(handler: ImageHandler, context: FakeContext) -> None:
    answers = ask(handler, context, ({"body": png()}, {}), ({"body": png()}, {"x-format": "a\r\nb"}))
    assert "x-error-body" not in context.headers[0]
    assert context.headers[1]["x-error-body"].encode() == answers[1]
    assert context.headers[1]["x-error-body"].isprintable()


def test_the_prediction_is_a_header_for_the_gateways_log_where_it_asks(
    handler: ImageHandler, context: FakeContext, tiny: TinyBundle
) -> None:
    answers = ask(
        handler,
        context,
        ({"body": png()}, {}),
        ({"body": png()}, {"X-Log-Prediction": "1"}),
        ({"body": b"text"}, {"X-Log-Prediction": "1"}),
    )
    assert "x-prediction" not in context.headers[0]
    best = json.loads(answers[1])["predictions"][0]
    card = ModelCard.load(tiny.directory / "card.json")
    expected = {"version": card.version, "best": [{"label": best["label"], "probability": best["probability"]}]}
    assert json.loads(context.headers[1]["x-prediction"]) == expected
    assert json.loads(context.headers[2]["x-prediction"])["best"] == []


def test_a_client_cannot_ask_for_an_explanation_by_a_header_of_its_own(
    handler: ImageHandler, context: FakeContext
) -> None:
    answer = ask(handler, context, ({"body": png()}, {"Explain": "True"}))[0]
    assert "heatmap" not in json.loads(answer)


def test_fields_that_are_named_like_headers_do_no_harm(handler: ImageHandler, context: FakeContext) -> None:
    types = {"x-request-id": {"content-type": "image/png"}, "x-top-k": {"content-type": ""}}
    ask(handler, context, ({"x-request-id": png()}, types))
    assert context.statuses[0][0] == 200


def test_the_query_of_invocations_is_not_taken_for_an_image(handler: ImageHandler, context: FakeContext) -> None:
    row = {"model_name": b"shapes", "model_version": b"1.0", "top_k": b"1", "body": png()}
    assert len(json.loads(ask(handler, context, (row, {}))[0])["predictions"]) == 1


def test_every_batch_size_is_run_before_the_worker_is_ready(tiny: TinyBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = Classifier.classify

    def classify(self: Classifier, images: np.ndarray) -> list[Classification]:
        sizes.append(len(images))
        return real(self, images)

    monkeypatch.setattr(Classifier, "classify", classify)
    ImageHandler().initialize(FakeContext(tiny.directory, batch_size=5))
    assert sizes == [1, 2, 3, 4, 5]


@pytest.mark.usefixtures("handler")
def test_every_known_code_is_counted_from_zero(context: FakeContext) -> None:
    """Prometheus sees growth from a series' second sample on: forty errors in the first one would raise no alert."""
    counts = context.sums("visionserve_requests_total", "status", "code")
    assert set(counts.values()) == {0}
    assert {("200", "ok"), ("500", "internal_error"), ("415", "unsupported_image")} <= set(counts)


@pytest.mark.usefixtures("handler")
def test_every_label_of_the_model_is_counted_from_zero(context: FakeContext, tiny: TinyBundle) -> None:
    """The shift of the label mix is judged by growth as well: a label's first answers are part of it."""
    labels = ModelCard.load(tiny.directory / "card.json").labels
    assert context.sums("visionserve_predictions_total", "label") == {(label,): 0 for label in labels}


def test_a_batch_counts_each_request_once_and_each_observation(handler: ImageHandler, context: FakeContext) -> None:
    ask(handler, context, ({"body": png()}, {}), ({"body": png()}, {}), ({"body": b""}, {}), ({"body": b"x"}, {}))
    handler._metrics_buffer.flush()
    counts = context.sums("visionserve_requests_total", "status", "code")
    assert {outcome: count for outcome, count in counts.items() if count} == {
        ("200", "ok"): 2,
        ("400", "empty_body"): 1,
        ("415", "unsupported_image"): 1,
    }
    assert sum(context.sums("visionserve_predictions_total", "label").values()) == 2
    assert context.sums("visionserve_batch_size_sum", "model") == {("shapes",): 2}
    assert context.sums("visionserve_batch_size_bucket", "le") == {(str(2**n),): n > 0 for n in range(8)} | {
        ("+Inf",): 1
    }
    assert context.sums("visionserve_novelty_count", "model") == {("shapes",): 2}
    for name in ("decode", "inference", "total"):
        assert context.sums(f"visionserve_{name}_seconds_count", "model") == {("shapes",): 1}
        assert context.sums(f"visionserve_{name}_seconds_sum", "model")["shapes",] > 0


@pytest.mark.usefixtures("handler")
def test_the_model_is_reported_with_its_version_and_digest(context: FakeContext, tiny: TinyBundle) -> None:
    digest = ModelCard.load(tiny.directory / "card.json").digest
    assert context.values("visionserve_model_info") == [(1, {"model": "shapes", "version": "1.0", "digest": digest})]


def test_a_label_cannot_break_a_metric_line(handler: ImageHandler, context: FakeContext) -> None:
    card = handler._classifier.card
    handler._classifier.card = replace(card, labels=("a,b:c|#d\n", 'q"\\', "colt's foot"))
    ask(handler, context, ({"body": png()}, {}))
    handler._metrics_buffer.flush()
    (label,) = (entry["label"] for count, entry in context.values("visionserve_predictions_total") if count)
    assert label in ("a_b_c__d_", "q__", "colt's foot")


def test_a_model_for_a_gpu_refuses_to_start_without_one(
    tiny: TinyBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in tiny.directory.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "card.json").unlink()
    replace(ModelCard.load(tiny.directory / "card.json"), device="cuda").save(tmp_path / "card.json")
    monkeypatch.setenv("VISIONSERVE_PROBE", "secret")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(SystemExit) as ended:  # no error, of which TorchServe's worker would print a trace
        ImageHandler().initialize(FakeContext(tmp_path, gpu=None))
    assert (ended.value.code, type(ended.value.__cause__)) == (1, BundleError)
    assert "packaged for a GPU" in (tmp_path / "visionserve-refusal-shapes-1.0").read_text(), "the launcher reads it"


@pytest.mark.parametrize(
    ("message", "expected"), [("CUDA failure 2: out of memory", []), ("CUDA failure 700: illegal access", [1])]
)
def test_a_cuda_error_ends_the_worker_but_exhausted_memory_does_not(
    handler: ImageHandler, context: FakeContext, monkeypatch: pytest.MonkeyPatch, message: str, expected: list[int]
) -> None:
    exits: list[int] = []
    monkeypatch.setattr("handlers.image_handler.os._exit", exits.append)
    monkeypatch.setattr(Classifier, "classify", Mock(side_effect=RuntimeError(message)))
    handler._classifier.card = replace(handler._classifier.card, device="cuda")
    ask(handler, context, ({"body": png()}, {}))
    assert exits == expected
    assert context.statuses[0] == (500, "Internal Server Error")


def test_only_who_knows_the_launchers_secret_learns_which_worker_answered(
    context: FakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISIONSERVE_PROBE", "secret")
    handler = ImageHandler()
    handler.initialize(context)
    asked = [({"body": png()}, {"X-Visionserve-Probe": value}) for value in ("secret", "guess", "")]
    ask(handler, context, *asked, ({"body": b"broken"}, {"X-Visionserve-Probe": "secret"}))
    named = [context.headers[index].get("x-visionserve-worker") for index in range(4)]
    assert named == [str(os.getpid()), None, None, None]
    handler._metrics_buffer.flush()
    assert sum(context.sums("visionserve_requests_total", "status").values()) == 2


def test_without_a_launcher_nobody_learns_which_worker_answered(handler: ImageHandler, context: FakeContext) -> None:
    ask(handler, context, ({"body": png()}, {"X-Visionserve-Probe": ""}))
    assert "x-visionserve-worker" not in context.headers[0]


def test_gpus_that_torchserve_cannot_read_reach_cuda_through_the_handler(
    context: FakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("VISIONSERVE_CUDA_VISIBLE_DEVICES", "MIG-1")
    ImageHandler().initialize(context)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "MIG-1"


def test_a_torchserve_that_declares_none_of_our_metrics_is_served_all_the_same(context: FakeContext) -> None:
    context.cache.clear()
    handler = ImageHandler()
    handler.initialize(context)
    ask(handler, context, ({"body": png()}, {}))
    assert context.statuses[0][0] == 200


def test_what_nobody_waits_for_any_longer_is_not_begun(
    handler: ImageHandler, context: FakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[bytes] = []
    prepare = handler._classifier.prepare

    def slow(data: bytes) -> np.ndarray:
        prepared.append(data)
        time.sleep(0.3)
        return prepare(data)

    monkeypatch.setattr(handler._classifier, "prepare", slow)
    now = time.time()
    waiting = {"x-request-arrival": f"{now:.3f}", "x-request-timeout": "60"}
    gone = {"x-request-arrival": f"{now - 31:.3f}", "x-request-timeout": "30"}
    # This one's time is over while its batch mate is decoded.
    late = {"x-request-arrival": f"{now - 30:.3f}", "x-request-timeout": "30.15"}
    row = {"body": png()}
    bodies = ask(
        handler, context, (row, waiting), (row, gone), (row, late), (row, {}), (row, {**gone, "x-request-arrival": "x"})
    )
    assert [context.statuses[index][0] for index in range(5)] == [200, 504, 504, 200, 200]
    assert json.loads(bodies[1])["error"]["code"] == "deadline_exceeded"
    assert len(prepared) == 3


def test_importing_the_handler_imports_no_decoder_of_rare_formats_and_no_colour_management() -> None:
    rare = ["pillow_heif", "_pillow_heif", "PIL.AvifImagePlugin", "PIL._avif", "PIL.ImageCms", "PIL._imagingcms"]
    code = f"import sys, handlers.image_handler; sys.exit(str(sorted(set({rare}) & set(sys.modules))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr.strip() == "[]"
