"""The server's image, built from this checkout, or the one that VISIONSERVE_IMAGE names."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.container.engine import ROOT, Container, attempt, docker
from tests.e2e.conftest import jpeg

BASES = ("python:3.11-slim-bookworm",)
CONTAINER = [pytest.mark.container, pytest.mark.timeout(900)]


@pytest.fixture(scope="session", autouse=True)
def engine() -> None:
    if shutil.which("docker") is None:
        pytest.skip("no docker command: install Docker to run the tests of the images")
    if attempt("version").returncode != 0:
        pytest.skip("no Docker engine answers: start one, or set DOCKER_HOST, to run the tests of the images")


@pytest.fixture(scope="session")
def image() -> str:
    """The image's name. VISIONSERVE_BUILD_OPTIONS go to `docker build`, such as --network=host behind a proxy."""
    name = os.environ.get("VISIONSERVE_IMAGE")
    if name:
        return name
    need(*BASES)
    options = os.environ.get("VISIONSERVE_BUILD_OPTIONS", "").split()
    arguments = ["--tag=visionserve:test", "--build-arg=VERSION=0.0.1", "--build-arg=REVISION=abc", *options, "."]
    docker("build", *arguments, environment={"DOCKER_BUILDKIT": "1"})
    return "visionserve:test"


def need(*images: str) -> None:
    """Skip the test unless the engine has these images: pulling gigabytes is not a test's to decide."""
    for name in images:
        if attempt("image", "inspect", name).returncode != 0:
            pytest.skip(f"the engine does not have {name}: `docker pull {name}` to run this")


@pytest.fixture(scope="session")
def photograph() -> bytes:
    """A photograph of sunflowers where there is one, else a drawn picture."""
    folder = os.environ.get("VISIONSERVE_DATA")
    paths = sorted(Path(folder, "photos").glob("*.jpg")) if folder else []
    return paths[0].read_bytes() if paths else jpeg(np.random.default_rng(7), 333, 500)


@pytest.fixture(scope="module")
def server(image: str) -> Iterator[Container]:
    """A container that is ready, on two cores."""
    with Container(image, ("--cpus=2",)) as running:
        yield running.ready()


__all__ = ["BASES", "CONTAINER", "ROOT", "need"]
