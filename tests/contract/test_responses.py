import base64
import io
import json
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image

from tests.contract import schemas
from tests.contract.conftest import BUNDLE
from visionserve import batch, errors
from visionserve.classifier import Classifier
from visionserve.request_parsing import RawRequest
from visionserve.responses import error_response


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier.load(BUNDLE)


@pytest.fixture(scope="module")
def image_bytes() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def answered(classifier: Classifier, body: bytes, *, explain: bool = False, **headers: str) -> Any:
    request = RawRequest(
        "id-1", {"body": body}, {name.replace("_", "-"): value for name, value in headers.items()}, explain
    )
    return json.loads(batch.answer(classifier, [request], max_images=8).replies[0].content.body)


@pytest.mark.parametrize("explain", [False, True])
def test_a_plain_answer_follows_its_schema(classifier: Classifier, image_bytes: bytes, explain: bool) -> None:
    answer = answered(classifier, image_bytes, explain=explain)
    jsonschema.validate(answer, schemas.EXPLANATION if explain else schemas.PLAIN)


@pytest.mark.parametrize("explain", [False, True])
def test_v1_and_v2_answers_follow_their_schemas(classifier: Classifier, image_bytes: bytes, explain: bool) -> None:
    text = base64.b64encode(image_bytes).decode()
    v1 = json.dumps({"instances": [{"b64": text}] * 3}).encode()
    v2 = json.dumps({"id": "x", "inputs": [{"datatype": "BYTES", "shape": [2], "data": [text] * 2}]}).encode()
    jsonschema.validate(answered(classifier, v1, explain=explain), schemas.V1)
    jsonschema.validate(answered(classifier, v2, explain=explain), schemas.V2)


def test_all_labels_can_be_asked_for_and_their_probabilities_add_up(classifier: Classifier, image_bytes: bytes) -> None:
    labels = classifier.card.labels
    predictions = answered(classifier, image_bytes, x_top_k=str(len(labels)))["predictions"]
    assert {entry["label"] for entry in predictions} == set(labels)
    assert sum(entry["probability"] for entry in predictions) == pytest.approx(1, abs=1e-4)
    ranked = [entry["probability"] for entry in predictions]
    assert ranked == sorted(ranked, reverse=True)


EVERY_ERROR = errors.ServiceError.__subclasses__()


@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda error: error.code)
def test_every_error_follows_the_schema(error: type[errors.ServiceError]) -> None:
    raised = error("What was wrong, and what to do.")
    jsonschema.validate(json.loads(error_response(raised, "id-1").body), schemas.ERROR)
    jsonschema.validate(json.loads(error_response(raised, "id-1", v2=True).body), schemas.V2_ERROR)


def test_the_schema_knows_exactly_the_errors_that_there_are() -> None:
    assert {error.code for error in EVERY_ERROR} == set(schemas.CODES)
