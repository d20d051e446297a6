"""The command against a real TorchServe, and in process with the same archive."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import E2E, VERSION, Service

pytestmark = E2E

COMMAND = Path(sys.executable).with_name("visionserve")


def run(*arguments: object, code: int = 0) -> str:
    done = subprocess.run([COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, photographs: list[bytes]) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    for number, photograph in enumerate(photographs):
        (folder / f"{number:02}.jpg").write_bytes(photograph)
    (folder / "cut.jpg").write_bytes(photographs[0][:200])
    return folder


def rows(path: Path) -> dict[str, Any]:
    return {row["path"]: row for row in map(json.loads, path.read_text().splitlines())}


def test_a_photograph_is_a_table(service: Service, folder: Path) -> None:
    output = run("predict", folder / "00.jpg", "--name", "flowers", "--url", service.url(""), "--top-k", 2)
    expected = service.put((folder / "00.jpg").read_bytes()).json()
    assert expected["predictions"][0]["label"] in output
    assert f"novelty {expected['novelty']:.2f}" in output


def test_a_folder_is_the_same_from_the_service_and_in_process(
    service: Service, model_store: Path, folder: Path, tmp_path: Path
) -> None:
    served, local = tmp_path / "served.jsonl", tmp_path / "local.jsonl"
    assert "12 answered; 1 without an answer (1 corrupt_image)" in run(
        "predict", folder, "--name", "flowers", "--url", service.url(""), "--output", served
    )
    run("predict", folder, "--model", model_store / "flowers.mar", "--workers", 1, "--output", local)
    assert len(rows(served)) == 13
    assert rows(served) == rows(local)
    assert "0 answered; 13 had a row already" in run(
        "predict", folder, "--name", "flowers", "--url", service.url(""), "--output", served
    )


def test_an_explanation_is_an_image(service: Service, folder: Path, tmp_path: Path) -> None:
    run("explain", folder / "00.jpg", "--name", "flowers", "--url", service.url(""), "--out", tmp_path / "overlay.png")
    assert (tmp_path / "overlay.png").read_bytes().startswith(b"\x89PNG")


def test_models_are_listed_by_the_status_server_only(service: Service) -> None:
    output = run("models", service.url("", "status_port"))
    assert f"flowers  {VERSION}      ready" in output
    assert "is ready." in output
    assert "ask the gateway or the status server" in run("models", service.url(""), code=3)
