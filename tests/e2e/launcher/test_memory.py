"""What a service holds under a memory limit, flooded with the largest bodies from as many clients as there may be."""

import base64
import contextlib
import io
import json
import logging
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import requests
from PIL import Image

from launcher import resources
from launcher.plan import make_plan
from tests.e2e.conftest import E2E, Service
from tests.e2e.gateway.gateways import NEEDS_NGINX, Gateway, running
from tests.e2e.launcher.test_lifecycle import launched, status, wait_for, workers_of

pytestmark = [*E2E, NEEDS_NGINX, pytest.mark.slow]
ROOT = Path("/sys/fs/cgroup/memory")
CLIENTS, REQUESTS = 32, 40
# The gateway's default, and one for a machine on which so many bodies cannot be answered within it.
ANSWER_TIMEOUT_S, SLOW_MACHINE_S = 30, 110


@contextlib.contextmanager
def memory_group(limit: int) -> Iterator[Path]:
    """A memory cgroup with a limit; skips where it cannot be made."""
    group = ROOT / f"visionserve-test-{os.getpid()}-{limit}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(limit))
    except OSError as error:
        pytest.skip(f"a memory limit needs cgroups of version 1 and root ({error}): run the tests as root")
    try:
        yield group
    finally:
        deadline = time.monotonic() + 30
        while (group / "cgroup.procs").read_text() and time.monotonic() < deadline:
            time.sleep(0.2)
        with contextlib.suppress(OSError):
            group.rmdir()


def noise(byte_count: int) -> bytes:
    """A JPEG of about so many bytes, slow to decode: nothing in it can be compressed."""
    side = int((byte_count / 1.25) ** 0.5)
    buffer = io.BytesIO()
    pixels = np.random.default_rng(1).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def bodies() -> dict[str, bytes]:
    """Bodies of up to 16 MiB: what is answered, what is refused as too large, and four images in JSON."""
    part = base64.b64encode(noise(2_800_000)).decode()
    return {
        "an image": noise(7_500_000),
        "too large": np.random.default_rng(2).bytes((16 << 20) - 65536),
        "JSON": json.dumps({"instances": [{"b64": part}] * 4}).encode(),
    }


class Peak:
    """The most memory of a group's processes, page cache aside, while it is open."""

    def __init__(self, group: Path) -> None:
        self._group = group
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.bytes = 0

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stopped.wait(0.1):
            size = re.search(r"(?m)^total_rss (\d+)", (self._group / "memory.stat").read_text())
            assert size is not None
            self.bytes = max(self.bytes, int(size[1]))


def flood(gateway: Gateway, body: bytes) -> Counter[str]:
    """Send a body many times at once and return how often which status came."""

    def send(_: int) -> str:
        try:
            answer = requests.put(gateway.url("predictions/flowers"), data=body, timeout=120)
        except requests.RequestException as error:
            return type(error).__name__
        if answer.status_code == requests.codes.too_many_requests:
            assert answer.headers["Retry-After"]
            time.sleep(0.5)
        return str(answer.status_code)

    with ThreadPoolExecutor(CLIENTS) as pool:
        return Counter(pool.map(send, range(REQUESTS)))


def answer_timeout_s(service: Service, places: int, workers: int) -> int:
    """Return the gateway's default if all places are answered within a third of it here: then a 504 is a failure."""
    alone_s = []
    for body in bodies().values():
        started = time.monotonic()
        service.put(body)
        alone_s.append(time.monotonic() - started)
    expected_s = max(alone_s) * places / workers
    timeout_s = ANSWER_TIMEOUT_S if expected_s < ANSWER_TIMEOUT_S / 3 else SLOW_MACHINE_S
    if timeout_s != ANSWER_TIMEOUT_S:
        logging.getLogger(__name__).warning(
            "a slow machine: time-outs of %d to %d s are not seen", ANSWER_TIMEOUT_S, timeout_s
        )
    return timeout_s


@pytest.mark.parametrize("limit", [1_000_000_000, 1_500_000_000, 3_000_000_000], ids=["1 GB", "1.5 GB", "3 GB"])
def test_the_largest_bodies_cost_nobody_an_answer_and_no_process_its_life(
    limit: int, model_store: Path, tmp_path: Path, photograph: bytes
) -> None:
    plan = make_plan(resources.cpus(), limit)
    with memory_group(limit) as group, (tmp_path / "log").open("wb") as log:
        inside = ("sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh")
        with launched(model_store, log, *inside) as service, Peak(group) as peak:
            wait_for("readiness", service, lambda: status(service, "readyz")[0] == 200)
            workers = workers_of(service)
            assert len(workers) == plan.workers
            inference = f"127.0.0.1:{service.ports['port']}"
            timeout_s = answer_timeout_s(service, plan.large_places, plan.workers)
            with running(tmp_path, inference, concurrency=plan.large_places, answer_timeout_s=timeout_s) as gateway:
                for kind, body in bodies().items():
                    fates = flood(gateway, body)
                    assert set(fates) <= {"200", "413", "429"}, f"{kind}: {fates}"
                    assert fates["200"] + fates["413"] > 0
                assert gateway.put(photograph).status_code == 200
            assert workers_of(service) == workers
            assert status(service, "readyz")[0] == 200
        assert "oom_kill 0" in (group / "memory.oom_control").read_text()
    assert peak.bytes <= plan.total_bytes
    assert "OutOfMemoryError" not in (tmp_path / "log").read_text()
