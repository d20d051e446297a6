"""The API's description is valid and says what the code says."""

import base64
import re
from typing import Any

import jsonschema
import openapi_spec_validator
import pytest

from gateway import routes
from launcher import metadata
from tests.contract.schemas import OPENAPI, schema
from visionserve import binary_tensors, errors, request_parsing
from visionserve.images import DEFAULT_LIMITS

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
PARAMETERS = {"model": "flowers", "version": "1.1"}


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    """Every path with one of its methods and what is said about it."""
    return [
        (path, method, operation)
        for path, item in OPENAPI["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    ]


def test_the_description_is_valid_openapi() -> None:
    openapi_spec_validator.validate(OPENAPI)


def test_every_operation_has_an_id_of_its_own() -> None:
    found = [operation["operationId"] for _, _, operation in operations()]
    assert len(set(found)) == len(found)


def shown(path: str) -> str:
    return path.format(**PARAMETERS)


def test_what_is_described_passes_the_gateway() -> None:
    for path, method, _ in operations():
        fitting = [route for route in (*routes.INFERENCE, *routes.STATUS) if re.fullmatch(route.pattern, shown(path))]
        assert [method.upper() in route.methods for route in fitting] == [True], path


@pytest.mark.parametrize("route", (*routes.INFERENCE, *routes.STATUS), ids=lambda route: route.shown)
def test_what_passes_the_gateway_is_described(route: routes.Route) -> None:
    assert any(re.fullmatch(route.pattern, shown(path)) for path, _, _ in operations())


def test_the_limits_are_the_librarys() -> None:
    v2 = OPENAPI["components"]["schemas"]["V2Request"]["properties"]["inputs"]["items"]["properties"]
    assert v2["data"]["maxItems"] == request_parsing.MAX_IMAGES
    text = OPENAPI["components"]["requestBodies"]["Image"]["description"]
    assert f"{DEFAULT_LIMITS.max_bytes >> 20} MiB" in text
    assert f"{DEFAULT_LIMITS.max_pixels // 1_000_000} million pixels" in text
    assert binary_tensors.HEADER in OPENAPI["components"]["requestBodies"]["V2"]["description"].lower()


def test_every_status_of_the_error_tree_is_described_for_inference() -> None:
    # The gateway's list of routes alone depends on conditions.
    kinds = set(errors.ServiceError.__subclasses__()) - {errors.PreconditionFailed}
    statuses = {str(error.status) for error in kinds} | {"200"}
    for path, method, operation in operations():
        if operation["tags"] == ["inference"]:
            assert set(operation["responses"]) == statuses, (path, method)


def test_what_the_status_server_says_of_itself_follows_its_schema() -> None:
    jsonschema.validate(metadata.server_metadata(), schema("ServerMetadata"))
    jsonschema.validate(metadata.error("not_found", "There is nothing.", "id-1"), schema("Error"))


def test_a_described_request_is_one_that_is_taken() -> None:
    text = base64.b64encode(b"image").decode()
    body: dict[str, Any] = {"inputs": [{"name": "images", "datatype": "BYTES", "shape": [1], "data": [text]}]}
    jsonschema.validate(body, schema("V2Request"))
    assert request_parsing.parse(request_parsing.RawRequest("id", {"body": body}, {}), 10).images == (b"image",)
    body = {"instances": [{"b64": text}], "parameters": {"top_k": 2}}
    jsonschema.validate(body, schema("V1Request"))
    assert request_parsing.parse(request_parsing.RawRequest("id", {"body": body}, {}), 10).top_k == 2
