import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import requests

from tests.e2e.conftest import E2E, Service
from tests.e2e.test_isolation import batched

pytestmark = E2E

WAITING, BATCH = 32, 4


def test_what_waits_is_answered_in_full_batches(service: Service, photograph: bytes) -> None:
    """Counted, not timed: the workers are held until all requests wait, so their speed changes nothing."""
    images, batches = batched(service)
    pids = [worker["pid"] for worker in service.workers()]
    with ThreadPoolExecutor(WAITING) as pool:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            answers = [pool.submit(service.put, photograph) for _ in range(WAITING)]
            wait_until_all_have_arrived(service)
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        assert [answer.result().status_code for answer in answers] == [200] * WAITING
    more_images, more_batches = batched(service)
    assert more_images - images == WAITING
    # A worker that idled took the first request alone, at once; all that came later shares.
    assert more_batches - batches <= len(pids) + -(-(WAITING - len(pids)) // BATCH) + 1


def wait_until_all_have_arrived(service: Service) -> None:
    """Let TorchServe read what was sent: it answers a ping after all that came before it on other connections."""
    for _ in range(5):
        time.sleep(0.3)
        requests.get(service.url("ping"), timeout=30)
