import base64
import io
import json
import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.unit.conftest import LABELS, TinyBundle
from visionserve import batch
from visionserve.classifier import Classifier
from visionserve.engines import Outputs
from visionserve.model_card import Device
from visionserve.request_parsing import RawRequest


class RecordingEngine:
    """Runs the real engine and remembers the size of each batch."""

    def __init__(self, classifier: Classifier) -> None:
        self.device = classifier.engine.device
        self.name = "recording"
        self.sizes: list[int] = []
        self._engine = classifier.engine

    def run(self, images: np.ndarray) -> Outputs:
        self.sizes.append(len(images))
        return self._engine.run(images)


class BrokenEngine:
    """Fails as a runtime does, with details that no client may see."""

    device: Device = "cpu"
    name = "fake"

    def run(self, images: np.ndarray) -> Outputs:
        raise RuntimeError(f"secret of {len(images)}")


@pytest.fixture
def classifier(tiny: TinyBundle) -> Classifier:
    return Classifier.load(tiny.directory)


@pytest.fixture
def engine(classifier: Classifier) -> RecordingEngine:
    recording = RecordingEngine(classifier)
    classifier.engine = recording
    return recording


def png(colour: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (17, 11), colour).save(buffer, "PNG")
    return buffer.getvalue()


RED, GREEN, BLUE = png((255, 0, 0)), png((0, 255, 0)), png((0, 0, 255))


def received(body: bytes, name: str = "id", *, explain: bool = False, **headers: str) -> RawRequest:
    return RawRequest(name, {"body": body}, {key.replace("_", "-"): value for key, value in headers.items()}, explain)


def v1(*images: bytes) -> bytes:
    return json.dumps({"instances": [{"b64": base64.b64encode(image).decode()} for image in images]}).encode()


def content(reply: batch.Reply) -> Any:
    return json.loads(reply.content.body)


def test_every_request_of_a_mixed_batch_is_answered_as_it_is_alone(classifier: Classifier) -> None:
    requests = [
        received(RED),
        received(b"no image"),
        received(GREEN, explain=True),
        received(b""),
        received(v1(BLUE, RED)),
        received(BLUE, x_top_k="abc"),
        received(GREEN, explain=True, x_format="png"),
    ]
    together = batch.answer(classifier, requests, max_images=8)
    alone = [batch.answer(classifier, [request], max_images=8).replies[0] for request in requests]
    assert [reply.status for reply in together.replies] == [200, 415, 200, 400, 200, 422, 200]
    assert [reply.content for reply in together.replies] == [reply.content for reply in alone]
    assert together.images == 5


def test_no_engine_run_exceeds_the_batch_size(classifier: Classifier, engine: RecordingEngine) -> None:
    replies = batch.answer(classifier, [received(v1(*[RED] * 7)), received(GREEN)], max_images=3).replies
    assert engine.sizes == [3, 3, 2]
    assert len(content(replies[0])["predictions"]) == 7
    assert replies[1].content == batch.answer(classifier, [received(GREEN)], max_images=3).replies[0].content


def test_a_batch_without_a_good_image_never_reaches_the_engine(classifier: Classifier, engine: RecordingEngine) -> None:
    outcome = batch.answer(classifier, [received(b""), received(b"x")], max_images=8)
    assert (engine.sizes, outcome.images) == ([], 0)


def test_one_bad_image_among_several_refuses_its_request_and_is_named(classifier: Classifier) -> None:
    first, second = batch.answer(classifier, [received(v1(RED, b"x", GREEN)), received(RED)], max_images=8).replies
    assert (first.status, first.code) == (415, "unsupported_image")
    assert content(first)["error"]["message"].startswith("Image 1: ")
    assert second.status == 200


def test_a_failing_engine_fails_its_batch_blandly_and_is_logged(
    classifier: Classifier, caplog: pytest.LogCaptureFixture
) -> None:
    classifier.engine = BrokenEngine()
    with caplog.at_level(logging.ERROR):
        outcome = batch.answer(classifier, [received(RED, "first"), received(b"", "second")], max_images=8)
    assert [reply.status for reply in outcome.replies] == [500, 400]
    assert content(outcome.replies[0]) == {
        "error": {"code": "internal_error", "message": batch.INTERNAL},
        "request_id": "first",
    }
    assert isinstance(outcome.failure, RuntimeError)
    assert "secret of 1" in caplog.text


def test_an_unforeseen_failure_in_decoding_stays_with_its_request(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = classifier.prepare

    def prepare(data: bytes) -> np.ndarray:
        if data == GREEN:
            raise ZeroDivisionError("a bug")
        return real(data)

    monkeypatch.setattr(classifier, "prepare", prepare)
    replies = batch.answer(classifier, [received(RED), received(GREEN), received(BLUE)], max_images=8).replies
    assert [reply.status for reply in replies] == [200, 500, 200]
    assert b"a bug" not in replies[1].content.body
    assert "a bug" in caplog.text


def test_a_request_that_decodes_for_too_long_is_cut_off_alone(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "DECODE_BUDGET_S", 0.0)
    replies = batch.answer(classifier, [received(v1(RED, GREEN)), received(BLUE)], max_images=8).replies
    assert [(reply.status, reply.code) for reply in replies] == [(504, "deadline_exceeded"), (200, "ok")]


def test_a_plain_answer_has_the_documented_shape(classifier: Classifier) -> None:
    answer = content(batch.answer(classifier, [received(RED, x_top_k="2")], max_images=8).replies[0])
    assert list(answer) == ["predictions", "novelty", "model"]
    assert [list(entry) for entry in answer["predictions"]] == [["label", "index", "probability"]] * 2
    assert all(LABELS[entry["index"]] == entry["label"] for entry in answer["predictions"])
    assert answer["model"] == {"name": "shapes", "version": "1.0"}


def test_v1_answers_no_more_than_the_protocol_says(classifier: Classifier) -> None:
    answer = content(batch.answer(classifier, [received(v1(RED, GREEN), explain=True)], max_images=8).replies[0])
    assert list(answer) == ["predictions"]
    assert [list(entry) for entry in answer["predictions"]] == [["predictions", "novelty", "heatmap"]] * 2


def test_v2_answers_tensors_whose_shapes_fit_their_data(classifier: Classifier) -> None:
    data = [base64.b64encode(image).decode() for image in (RED, GREEN)]
    body = json.dumps({"id": "\ud800", "inputs": [{"datatype": "BYTES", "shape": [2], "data": data}]}).encode()
    reply = batch.answer(classifier, [received(body, explain=True, x_top_k="3")], max_images=8).replies[0]
    answer = content(reply)
    tensors = answer["outputs"]
    shapes = {tensor["name"]: (tensor["datatype"], tensor["shape"], len(tensor["data"])) for tensor in tensors}
    assert shapes == {
        "label": ("BYTES", [2, 3], 6),
        "probability": ("FP32", [2, 3], 6),
        "index": ("INT64", [2, 3], 6),
        "novelty": ("FP32", [2], 2),
        "heatmap": ("BYTES", [2], 2),
    }
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("shapes", "1.0", "\ud800")


def test_an_explanations_heatmap_is_that_of_the_most_probable_label(classifier: Classifier) -> None:
    reply = batch.answer(classifier, [received(RED, explain=True, x_top_k="1")], max_images=8).replies[0]
    heatmap = Image.open(io.BytesIO(base64.b64decode(content(reply)["heatmap"])))
    assert (heatmap.size, heatmap.mode) == ((32, 32), "L")


def test_labels_outside_ascii_survive(tiny: TinyBundle) -> None:
    classifier = Classifier.load(tiny.directory)
    classifier.card = replace(classifier.card, labels=("Gänseblümchen", "蓮", "🌻"))
    reply = batch.answer(classifier, [received(RED)], max_images=8).replies[0]
    assert {entry["label"] for entry in content(reply)["predictions"]} == {"Gänseblümchen", "蓮", "🌻"}
