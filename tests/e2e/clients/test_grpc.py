"""gRPC, with the interface that TorchServe's own jar publishes."""

import importlib
import json
import sys
import zipfile
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc_tools import protoc

from tests.e2e.conftest import E2E, Service

pytestmark = E2E


@pytest.fixture(scope="module")
def interface(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The messages and stubs of inference.proto, compiled now."""
    folder = tmp_path_factory.mktemp("proto")
    found = util.find_spec("ts")
    assert found is not None and found.origin is not None
    with zipfile.ZipFile(Path(found.origin).parent / "frontend" / "model-server.jar") as jar:
        text = jar.read("inference.proto").decode()
    # Only a streaming call that is not used here needs google.rpc.Status, whose file the jar does not hold.
    plain = [line for line in text.splitlines() if "google/rpc" not in line and "google.rpc" not in line]
    (folder / "inference.proto").write_text("\n".join(plain))
    bundled = str(Path(protoc.__file__).parent / "_proto")
    options = [f"-I{folder}", f"-I{bundled}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    assert protoc.main(["protoc", *options, "inference.proto"]) == 0
    sys.path.insert(0, str(folder))
    yield SimpleNamespace(
        messages=importlib.import_module("inference_pb2"), stubs=importlib.import_module("inference_pb2_grpc")
    )
    sys.path.remove(str(folder))


def predict(service: Service, interface: Any, **fields: bytes) -> Any:
    with grpc.insecure_channel(f"127.0.0.1:{service.ports['grpc_port']}") as channel:
        request = interface.messages.PredictionsRequest(model_name="flowers", input=fields)
        answer = interface.stubs.InferenceAPIsServiceStub(channel).Predictions(request, timeout=60)
    return json.loads(answer.prediction)


def test_grpc_answers_as_http_does(service: Service, interface: Any, photograph: bytes) -> None:
    assert predict(service, interface, data=photograph) == service.put(photograph).json()


def test_grpc_carries_options_beside_the_image(service: Service, interface: Any, photograph: bytes) -> None:
    assert len(predict(service, interface, data=photograph, top_k=b"2")["predictions"]) == 2


def test_grpc_says_in_the_body_what_was_wrong(service: Service, interface: Any) -> None:
    assert predict(service, interface, data=b"no image")["error"]["code"] == "unsupported_image"
