"""Triton's client, which we did not write, speaks Open Inference V2 to the service through its gateway."""

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException

from tests.e2e.conftest import E2E, VERSION, Service
from tests.e2e.gateway.gateways import NEEDS_NGINX, running

pytestmark = [*E2E, NEEDS_NGINX]


@pytest.fixture(scope="module")
def client(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    status = f"127.0.0.1:{service.ports['status_port']}"
    inference = f"127.0.0.1:{service.ports['port']}"
    with running(tmp_path_factory.mktemp("gateway"), inference, status=status, answer_timeout_s=120) as gateway:
        found = triton.InferenceServerClient(f"127.0.0.1:{gateway.port}", network_timeout=120, connection_timeout=120)
        yield found
        found.close()


def images(*files: bytes, binary: bool = True) -> Any:
    tensor = triton.InferInput("images", [len(files)], "BYTES")
    elements = list(files) if binary else [base64.b64encode(file).decode() for file in files]
    tensor.set_data_from_numpy(np.array(elements, dtype=np.object_), binary_data=binary)
    return tensor


def wanted(service: Service, file: bytes) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = service.put(file).json()["predictions"]
    return found


def test_health_and_readiness_pass(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("flowers")
    assert client.is_model_ready("flowers", VERSION)
    assert not client.is_model_ready("nothing")


def test_metadata_names_the_tensors_that_requests_carry(client: Any) -> None:
    server, model = client.get_server_metadata(), client.get_model_metadata("flowers")
    assert server["name"] == "visionserve"
    assert "binary_tensor_data" in server["extensions"]
    assert model["versions"] == [VERSION]
    assert model["inputs"] == [{"name": "images", "datatype": "BYTES", "shape": [-1]}]
    assert "probability" in {output["name"] for output in model["outputs"]}


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_several_photographs_are_answered_as_each_alone(
    client: Any, service: Service, photographs: list[bytes], binary: bool
) -> None:
    files = photographs[:3]
    result = client.infer("flowers", [images(*files, binary=binary)], request_id="call-7")
    assert result.get_response()["id"] == "call-7"
    labels, probabilities = result.as_numpy("label"), result.as_numpy("probability")
    assert labels.shape == probabilities.shape == (3, 5)
    for place, file in enumerate(files):
        alone = wanted(service, file)
        assert [_text(label) for label in labels[place]] == [entry["label"] for entry in alone]
        assert probabilities[place].tolist() == pytest.approx([entry["probability"] for entry in alone], abs=1e-6)
    assert result.as_numpy("index").dtype == np.int64
    assert result.as_numpy("novelty").shape == (3,)


def test_a_version_and_outputs_may_be_named(client: Any, photograph: bytes) -> None:
    outputs = [triton.InferRequestedOutput("label", binary_data=False)]
    result = client.infer("flowers", [images(photograph)], model_version=VERSION, outputs=outputs)
    assert result.as_numpy("label").shape == (1, 5)


def test_several_requests_may_be_under_way(service: Service, client: Any, photographs: list[bytes]) -> None:
    waiting = [client.async_infer("flowers", [images(file)]) for file in photographs]
    for file, request in zip(photographs, waiting, strict=True):
        assert _text(request.get_result().as_numpy("label")[0][0]) == wanted(service, file)[0]["label"]


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (images(b"no image"), "Unsupported image format"),
        (images(*[b"x"] * 17), "At most 16 images"),
        (images(b"\xff\xd8\xff\xe0 broken"), "corrupt|does not decode|broken|truncated"),
    ],
    ids=["no-image", "too-many", "broken"],
)
def test_a_refusal_reaches_the_caller_in_words(client: Any, tensor: Any, said: str) -> None:
    with pytest.raises(InferenceServerException, match=said):
        client.infer("flowers", [tensor])


def test_a_tensor_of_numbers_is_refused_in_words(client: Any) -> None:
    pixels = triton.InferInput("images", [1, 8, 8, 3], "UINT8")
    pixels.set_data_from_numpy(np.zeros((1, 8, 8, 3), np.uint8))
    with pytest.raises(InferenceServerException, match="BYTES"):
        client.infer("flowers", [pixels])


def _text(label: Any) -> str:
    return label.decode() if isinstance(label, bytes) else str(label)
