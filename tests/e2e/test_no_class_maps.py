"""A network without class maps end to end: trained on drawn images, packed, and served by a real TorchServe."""

import base64
import subprocess
import sys
from collections.abc import Iterator

import pytest
import requests

from scripts import sample_images
from tests.e2e.conftest import E2E, ROOT, Service, start, stop

NAME, ARCHITECTURE = "shapes", "mobilenet_v3_small"  # two linear layers behind the pool
pytestmark = [*E2E, pytest.mark.slow]


def _training(*arguments: str) -> None:
    command = [sys.executable, "-m", "training", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("shapes")
    images = sample_images.draw(folder / "images", each=16)
    recipe = ["-c", "training/recipes/folder.yaml", "--data.root", str(images), "--name", NAME, "--init", "none"]
    small = ["--architecture", ARCHITECTURE, "--epochs", "1", "--least_steps", "0", "--probe", "false"]
    size = ["--input.size", "64", "--stages", '[{"until": 1.0, "size": 64}]', "--data.cache_side", "72"]
    places = ["--run", str(folder / "run"), "--output", str(folder / NAME), "--cache", str(folder / "cache")]
    _training("all", *recipe, *small, *size, *places, "--tracking.tracker", "none")
    _training("package", "--bundle", str(folder / NAME), "--profile", "cpu", "--output", str(folder / f"{NAME}.mar"))
    running = start(folder, folder / "service.log")
    yield running
    assert stop(running) == 0


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("image") / "circle.jpg"
    sample_images.sample("circle", seed=5000).save(path)
    return path.read_bytes()


def test_its_predictions_are_those_of_any_network(service: Service, image: bytes) -> None:
    answer = service.put(image, f"predictions/{NAME}", x_top_k="3").json()
    assert {row["label"] for row in answer["predictions"]} == set(sample_images.LABELS)
    assert sum(row["probability"] for row in answer["predictions"]) == pytest.approx(1, abs=1e-4)


def test_its_explanation_is_the_prediction_with_a_note_in_every_protocol(service: Service, image: bytes) -> None:
    plain = service.put(image, f"explanations/{NAME}")
    assert plain.status_code == 200
    assert "heatmap" not in plain.json()
    assert f"{ARCHITECTURE} has no class maps" in plain.json()["note"]
    instances = {"instances": [{"b64": base64.b64encode(image).decode()}] * 2}
    batch = service.post_json(instances, f"explanations/{NAME}")
    assert batch.status_code == 200, batch.text
    assert "has no class maps" in batch.text


def test_a_heatmap_as_an_image_is_refused_and_the_status_port_says_that_there_is_none(
    service: Service, image: bytes
) -> None:
    overlay = service.put(image, f"explanations/{NAME}", x_format="png")
    assert overlay.status_code == 422
    assert "has no class maps" in overlay.json()["error"]["message"]
    described = requests.get(service.url(f"models/{NAME}", "status_port"), timeout=30).text
    assert '"heatmap":false' in described.replace(" ", "")
