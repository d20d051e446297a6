"""The Python client against a real TorchServe and its status server, without a gateway."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import E2E, VERSION, Service
from visionserve.client import AsyncClient, Client, GrpcClient, ResponseError, ServiceUnreachable

pytestmark = E2E


def client_for(service: Service, protocol: str = "native") -> Client:
    return Client(
        service.url("").rstrip("/"),
        timeout_s=120,
        protocol="v2" if protocol == "v2" else "native",
        status_url=service.url("", "status_port"),
    )


@pytest.fixture(params=["native", "v2"])
def client(service: Service, request: pytest.FixtureRequest) -> Iterator[Client]:
    with client_for(service, request.param) as client:
        yield client


def test_an_answer_is_the_services_own(client: Client, service: Service, photograph: bytes) -> None:
    expected = service.put(photograph).json()
    answer = client.predict(photograph)
    assert [(p.label, p.index, p.probability) for p in answer.predictions] == [
        (p["label"], p["index"], p["probability"]) for p in expected["predictions"]
    ]
    assert (answer.novelty, answer.model.name) == (expected["novelty"], "flowers")
    assert set(answer.timings) == {"decode", "inference", "total"}
    if client.address.protocol == "native":  # TorchServe knows no versions in V2; the gateway does
        assert len(client.predict(photograph, version=VERSION).predictions) == 5


def test_explanations_are_images(client: Client, photograph: bytes) -> None:
    assert (client.explain(photograph).heatmap or b"").startswith(b"\x89PNG")
    assert client.overlay(photograph).startswith(b"\x89PNG")


def test_refusals_carry_the_services_words(client: Client, photograph: bytes) -> None:
    with pytest.raises(ResponseError) as refused:
        client.predict(b"no image", request_id="call-1")
    assert (refused.value.status, refused.value.code) == (415, "unsupported_image")
    assert refused.value.request_id == "call-1"
    with pytest.raises(ResponseError) as refused:
        client.predict(photograph, "nothing")
    assert refused.value.code == "not_found"


def test_options_are_taken(service: Service, photograph: bytes) -> None:
    with client_for(service) as client:
        assert len(client.predict(photograph, top_k=2).predictions) == 2
        with pytest.raises(ResponseError, match="top_k"):
            client.predict(photograph, top_k=1000)


def test_models_and_health_are_reported(client: Client) -> None:
    (model,) = client.models()
    assert (model.name, model.status) == ("flowers", "ready")
    card = client.model().card
    assert card is not None
    assert len(card["labels"]) == 102
    assert client.ready()


def test_many_files_come_back_in_order(client: Client, photographs: list[bytes], tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.jpg" for number in range(len(photographs))]
    for path, photograph in zip(paths, photographs, strict=True):
        path.write_bytes(photograph)
    outcomes = list(client.predict_many(paths, concurrency=4))
    assert [outcome.path for outcome in outcomes] == paths
    alone = [client.predict(photograph).predictions for photograph in photographs]
    assert [outcome.answer.predictions if outcome.answer else None for outcome in outcomes] == alone


def test_the_asynchronous_twin_answers_alike(service: Service, photographs: list[bytes]) -> None:
    async def ask() -> list[str]:
        async with AsyncClient(service.url("").rstrip("/"), timeout_s=120) as client:
            answers = await asyncio.gather(*(client.predict(photograph, "flowers") for photograph in photographs))
        return [answer.best.label for answer in answers]

    with client_for(service) as client:
        assert asyncio.run(ask()) == [client.predict(photograph).best.label for photograph in photographs]


def test_grpc_answers_as_http_does(service: Service, photograph: bytes) -> None:
    with GrpcClient(f"127.0.0.1:{service.ports['grpc_port']}", timeout_s=120) as grpc, client_for(service) as http:
        assert grpc.predict(photograph, "flowers", top_k=3).predictions == http.predict(photograph, top_k=3).predictions
        with pytest.raises(ResponseError) as refused:
            grpc.predict(b"no image", "flowers")
        assert (refused.value.status, refused.value.code) == (415, "unsupported_image")
        with pytest.raises(ResponseError) as refused:
            grpc.predict(photograph, "nothing")
        assert refused.value.code == "not_found"


def test_grpc_without_a_service_is_one_sentence() -> None:
    with (
        GrpcClient("127.0.0.1:1", timeout_s=5) as client,
        pytest.raises(ServiceUnreachable, match="No visionserve service"),
    ):
        client.predict(b"image", "flowers")
