"""The build context on a real engine: everything that the Dockerfile copies is sent, and nothing private."""

import re

import pytest

from tests.container.conftest import CONTAINER, ROOT
from tests.container.engine import attempt

pytestmark = CONTAINER
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COPIES = sorted(set(re.findall(r"^COPY (?!--from).+$", DOCKERFILE, re.MULTILINE)))


# Engines before 28 have a builder of their own besides BuildKit; each reads .dockerignore in its own way.
@pytest.mark.parametrize("buildkit", ["0", "1"])
def test_every_source_of_a_copy_is_in_the_context(buildkit: str) -> None:
    lines = [line.replace("${MODEL}", "flowers") for line in COPIES]
    dockerfile = "\n".join(["FROM scratch", "WORKDIR /context", *lines, ""])
    done = attempt("build", "--file=-", ".", data=dockerfile.encode(), environment={"DOCKER_BUILDKIT": buildkit})
    output = (done.stdout + done.stderr).decode()
    if "buildx component is missing" in output:
        pytest.skip("this docker command lacks the builder: install its plugin buildx")
    assert done.returncode == 0, output
