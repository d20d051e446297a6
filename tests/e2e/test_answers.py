import base64
import gzip
import io
import json
import struct
import time

import pillow_heif
import pytest
import requests
from PIL import Image

from tests.e2e.conftest import E2E, Service
from tests.e2e.invalid_requests import Breakage, breakages, error_of

pytestmark = E2E


def test_put_and_post_of_an_image_answer_the_same(service: Service, photograph: bytes) -> None:
    put = service.put(photograph)
    post = requests.post(
        service.url("predictions/flowers"), data=photograph, headers={"Content-Type": "image/jpeg"}, timeout=60
    )
    assert put.status_code == post.status_code == 200
    assert put.content == post.content
    assert put.headers["content-type"] == "application/json"


def test_the_version_may_be_named(service: Service, photograph: bytes) -> None:
    answer = service.put(photograph)
    version = answer.json()["model"]["version"]
    assert service.put(photograph, f"predictions/flowers/{version}").content == answer.content


def test_a_field_of_a_form_answers_like_the_raw_body(service: Service, photograph: bytes) -> None:
    for field in ("file", "data", "any name ü"):
        answer = requests.post(service.url("predictions/flowers"), files={field: ("p.jpg", photograph)}, timeout=60)
        assert answer.content == service.put(photograph).content


def test_an_option_may_be_a_field_of_the_form(service: Service, photograph: bytes) -> None:
    answer = requests.post(
        service.url("predictions/flowers"), files={"file": ("p.jpg", photograph)}, data={"top_k": "2"}, timeout=60
    )
    assert len(answer.json()["predictions"]) == 2


@pytest.mark.parametrize("path", ["predictions/flowers", "v1/models/flowers:predict"])
def test_v1_answers_every_instance_as_it_is_answered_alone(
    service: Service, photographs: list[bytes], path: str
) -> None:
    instances = [{"b64": base64.b64encode(data).decode()} for data in photographs]
    answer = service.post_json({"instances": instances, "parameters": {"top_k": 3}}, path)
    alone = [service.put(data, x_top_k="3").json() for data in photographs]
    assert answer.json() == {"predictions": [{k: v for k, v in entry.items() if k != "model"} for entry in alone]}


@pytest.mark.parametrize("path", ["predictions/flowers", "v2/models/flowers/infer"])
def test_v2_answers_tensors_in_the_order_of_the_images(service: Service, photographs: list[bytes], path: str) -> None:
    data = [base64.b64encode(photograph).decode() for photograph in photographs[:3]]
    tensor = {"name": "images", "datatype": "BYTES", "shape": [3], "data": data}
    answer = service.post_json({"id": "call-7", "inputs": [tensor], "parameters": {"top_k": 2}}, path).json()
    outputs = {output["name"]: output for output in answer["outputs"]}
    alone = [service.put(photograph, x_top_k="2").json() for photograph in photographs[:3]]
    assert answer["id"] == "call-7"
    assert outputs["label"]["data"] == [found["label"] for entry in alone for found in entry["predictions"]]
    assert outputs["probability"]["shape"] == [3, 2]
    assert outputs["novelty"]["data"] == [entry["novelty"] for entry in alone]


def test_query_parameters_reach_the_handler_through_invocations(service: Service, photograph: bytes) -> None:
    answer = service.put(photograph, "invocations?model_name=flowers&top_k=1")
    assert len(answer.json()["predictions"]) == 1


def test_an_explanation_adds_a_heatmap_to_the_prediction(service: Service, photograph: bytes) -> None:
    explained = service.put(photograph, "explanations/flowers").json()
    heatmap = Image.open(io.BytesIO(base64.b64decode(explained.pop("heatmap"))))
    assert (heatmap.mode, heatmap.format) == ("L", "PNG")
    assert explained == service.put(photograph).json()


def test_an_explanation_as_png_is_the_picture_itself(service: Service, photograph: bytes) -> None:
    answer = service.put(photograph, "explanations/flowers", x_format="png")
    assert answer.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(answer.content)).mode == "RGB"


def test_a_prediction_as_png_is_refused(service: Service, photograph: bytes) -> None:
    answer = service.put(photograph, x_format="png")
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_parameter")


@pytest.mark.parametrize("broken", breakages(b"\xff\xd8\xff\xe0" + bytes(400)), ids=lambda broken: broken.name)
def test_every_breakage_has_a_status_and_a_code(service: Service, photograph: bytes, broken: Breakage) -> None:
    same = next(entry for entry in breakages(photograph) if entry.name == broken.name)
    answer = service.put(same.body, **same.headers)
    assert (answer.status_code, error_of(answer)["code"]) == (same.status, same.code)
    assert answer.headers["content-type"] == "application/json"
    assert error_of(answer)["message"]


def test_a_clients_request_id_is_in_its_error(service: Service) -> None:
    assert service.put(b"", x_request_id="my.id-7").json()["request_id"] == "my.id-7"


@pytest.mark.parametrize("given", ["", "with space", "x" * 129, "né"])
def test_another_request_id_is_made_and_is_that_of_the_response_header(service: Service, given: str) -> None:
    answer = requests.put(
        service.url("predictions/flowers"), data=b"", headers={"x-request-id": given.encode("latin-1")}, timeout=60
    )
    assert answer.json()["request_id"] == answer.headers["x-request-id"] != given


def test_every_answer_says_how_long_it_took(service: Service, photograph: bytes) -> None:
    for body in (photograph, b"no image"):
        timings = dict(entry.split(";dur=") for entry in service.put(body).headers["Server-Timing"].split(", "))
        assert set(timings) == {"decode", "inference", "total"}
        assert 0 <= float(timings["decode"]) <= float(timings["total"]) < 60_000


def test_more_than_the_front_end_takes_is_413_too(service: Service, photograph: bytes) -> None:
    answer = service.put(photograph + bytes(17_000_000), Expect="100-continue")
    assert answer.status_code == 413


def test_an_image_that_is_declared_as_a_form_is_a_short_line_of_log(service: Service, photograph: bytes) -> None:
    """What `curl --data-binary` sends without a Content-Type: TorchServe parses it before any handler sees it."""
    assert service.put(photograph, content_type="application/x-www-form-urlencoded").status_code == 500
    deadline = time.monotonic() + 30  # the log is written asynchronously
    while not (lines := [line for line in service.log.read_text(errors="replace").splitlines() if "curl -T" in line]):
        assert time.monotonic() < deadline, f"the log does not say what to do:\n{service.log.read_text()}"
        time.sleep(0.2)
    assert max(map(len, lines)) < 2000
    assert json.loads(lines[-1])["level"] == "ERROR"
    assert "io.netty.channel" not in lines[-1]


@pytest.mark.parametrize("kind", ["heic", "avif"])
def test_what_phones_write_is_answered_as_the_jpeg_is(service: Service, photograph: bytes, kind: str) -> None:
    file = io.BytesIO()
    image = Image.open(io.BytesIO(photograph))
    if kind == "heic":
        pillow_heif.from_pillow(image).save(file, quality=95)
    else:
        image.save(file, "AVIF", quality=95, speed=10)
    best = service.put(file.getvalue()).json()["predictions"][0]
    assert best["label"] == service.put(photograph).json()["predictions"][0]["label"]


def test_wrappings_of_an_image_are_undone(service: Service, photograph: bytes) -> None:
    plain = service.put(photograph)
    assert service.put(gzip.compress(photograph), content_encoding="gzip").content == plain.content
    lines = base64.encodebytes(photograph).decode()
    entry = {key: value for key, value in plain.json().items() if key != "model"}
    body = (
        b"\xef\xbb\xbf"
        + json.dumps({"instances": [{"b64": lines}, {"b64": f"data:image/jpeg;base64,{lines}"}]}).encode()
    )
    assert service.put(body).json() == {"predictions": [entry, entry]}
    refused = service.put(photograph, content_encoding="br")
    assert (refused.status_code, error_of(refused)["code"]) == (415, "unsupported_encoding")


def test_the_files_of_a_form_are_answered_in_order(service: Service, photographs: list[bytes]) -> None:
    files = [("file", (f"{number}.jpg", data)) for number, data in enumerate(photographs[:3])]
    answer = requests.post(service.url("predictions/flowers"), files=files, timeout=60).json()["predictions"]
    alone = [service.put(data).json()["predictions"] for data in photographs[:3]]
    assert [entry["predictions"] for entry in answer] == alone


def test_a_browsers_get_is_told_how_to_send_an_image(service: Service) -> None:
    answer = requests.get(service.url("predictions/flowers"), headers={"Accept": "text/html"}, timeout=60)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST, PUT")
    assert "curl -T photo.jpg" in error_of(answer)["message"]


def test_a_tiny_image_is_answered(service: Service) -> None:
    pixel = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 58, 0, 0, 54, 40, 1, 1, 1, 24, 0, 4, 0, 0, 0, 0) + bytes(4)
    assert json.loads(service.put(pixel).content)["predictions"]
