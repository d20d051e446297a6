import shutil
from pathlib import Path

import pytest

from loadtests import restarts
from loadtests.restarts import Plan
from tests.e2e.conftest import E2E

pytestmark = E2E


def test_a_restart_behind_a_load_balancer_loses_no_request(model_store: Path) -> None:
    """`python -m loadtests restarts` does the same with five restarts, and with TorchServe alone beside it."""
    if shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin") is None:
        pytest.skip("nginx is missing: install the Debian package nginx-light")
    result = restarts.measure(
        "visionserve", model_store / "flowers.mar", Plan(restarts=1, requests=200, rate=20, lag_s=0.5, sizes="500x400")
    )
    assert result.requests >= 200
    assert (result.lost, result.reasons) == (0, {})
