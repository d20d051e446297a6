import time
from concurrent.futures import ThreadPoolExecutor

import requests

from handlers import metrics_buffer
from tests.e2e.conftest import E2E, Service
from tests.e2e.invalid_requests import Breakage, breakages, error_of

pytestmark = E2E

CONCURRENT = 64


def test_good_answers_keep_every_bit_among_broken_requests(service: Service, photographs: list[bytes]) -> None:
    paths = ("predictions/flowers", "explanations/flowers")
    alone = {(path, place): service.put(data, path).content for path in paths for place, data in enumerate(photographs)}
    broken = breakages(photographs[0])
    jobs: list[Breakage | tuple[str, int]] = [
        broken[number // 3 % len(broken)] if number % 3 == 0 else (paths[number % 2], number % len(photographs))
        for number in range(CONCURRENT)
    ]

    def ask(job: Breakage | tuple[str, int]) -> requests.Response:
        if isinstance(job, Breakage):
            return service.put(job.body, **job.headers)
        return service.put(photographs[job[1]], job[0])

    images, batches = batched(service)
    with ThreadPoolExecutor(CONCURRENT) as pool:
        answers = list(pool.map(ask, jobs))
    for job, answer in zip(jobs, answers, strict=True):
        if isinstance(job, Breakage):
            assert (job.name, answer.status_code, error_of(answer)["code"]) == (job.name, job.status, job.code)
        else:
            assert (answer.status_code, answer.content) == (200, alone[job])
    more_images, more_batches = batched(service)
    assert more_images - images > more_batches - batches, "the requests never met in a batch: nothing was proved"


def batched(service: Service) -> tuple[float, float]:
    """How many images were answered so far, and in how many batches, by the service's own metrics."""
    time.sleep(2 * metrics_buffer.PERIOD_S)
    text = requests.get(service.url("metrics", "metrics_port"), timeout=30).text
    lines = [line for line in text.splitlines() if line.startswith("visionserve_batch_size_")]
    values = {line.split("{")[0]: float(line.rsplit(" ", 1)[1]) for line in lines}
    return values.get("visionserve_batch_size_sum", 0.0), values.get("visionserve_batch_size_count", 0.0)


def test_no_worker_died_of_what_clients_sent(service: Service) -> None:
    before = {worker["pid"] for worker in service.workers()}
    for broken in breakages(b"\xff\xd8\xff\xe0" + bytes(400)):
        service.put(broken.body, **broken.headers)
    assert {worker["pid"] for worker in service.workers()} == before
