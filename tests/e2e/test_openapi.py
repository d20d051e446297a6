"""Schemathesis sends what docs/openapi.yaml allows, and what it does not, and holds every answer against it."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.contract.schemas import OPENAPI
from tests.e2e.conftest import E2E, VERSION, Service
from tests.e2e.gateway.gateways import NEEDS_NGINX, running

pytestmark = [*E2E, pytest.mark.slow, NEEDS_NGINX]

CONFIGURATION = Path(__file__).parents[2] / "schemathesis.toml"


@pytest.fixture
def description(tmp_path: Path) -> Path:
    """The description with names that exist among the possible ones: hardly a drawn name would be that of a model."""
    parameters = OPENAPI["components"]["parameters"]
    narrowed = {
        **parameters,
        "model": {**parameters["model"], "schema": {"enum": ["flowers", "nothing"]}},
        "version": {**parameters["version"], "schema": {"enum": [VERSION, "9.9"]}},
    }
    path = tmp_path / "openapi.yaml"
    path.write_text(yaml.safe_dump({**OPENAPI, "components": {**OPENAPI["components"], "parameters": narrowed}}))
    return path


def test_the_service_does_what_its_description_says(service: Service, description: Path, tmp_path: Path) -> None:
    status, inference = (f"127.0.0.1:{service.ports[name]}" for name in ("status_port", "port"))
    options = ["--seed", "1", "--max-examples", "2", "--phases", "examples,coverage,fuzzing", "--max-time", "60"]
    with running(tmp_path, inference, status=status, answer_timeout_s=120) as gateway:
        command = [
            str(Path(sys.executable).with_name("schemathesis")),
            f"--config-file={CONFIGURATION}",
            "run",
            str(description),
            "--url",
            gateway.url(""),
        ]
        checks = ["--checks", "all", "--warnings", "off"]
        done = subprocess.run(
            [*command, *checks, *options], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=500
        )
    assert done.returncode == 0, done.stdout
    assert "Tested: 29" in done.stdout, done.stdout
