"""Parts over HTTP: TorchServe with the archive at 1 to 256 connections, and with a worker killed under load."""

import contextlib
import http.client
import json
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from loadtests import machine
from loadtests.benchmark import client, server, services
from loadtests.benchmark.client import Window
from loadtests.benchmark.server import Server
from loadtests.gpu.job import Job, Results, run_part
from loadtests.load import workers
from loadtests.load.http_client import Target
from loadtests.load.images import EncodedImage, read_images
from loadtests.load.openloop import Limits
from loadtests.load.shapes import Stage
from loadtests.load.workload import Workload
from loadtests.results import summary
from loadtests.results.run_record import RunRecord
from loadtests.results.stats import IntervalStats, RequestStats, percentile
from loadtests.results.validation import calibrate
from loadtests.tune import setting

_CONNECTIONS, _QUICK_CONNECTIONS = (1, 8, 32, 128, 256), (1, 8)
# One client process posts some 4,000 images a second; more of them than this would take the service's cores.
_MOST_CLIENTS = 4
_WORKER = "model_service_worker.py"
_KILL_AFTER_S, _RECOVERY_S = 3.0, 60.0
# What the killed worker leaves to the others must fit into them.
_KILL_LOAD = 0.4
_POLL_S = 0.05


@dataclass
class Load:
    """A running service, its images with the labels that they must get, and the processes that send them."""

    service: Server
    status_url: str
    images: tuple[EncodedImage, ...]
    labels: dict[str, str]
    pool: ProcessPoolExecutor
    clients: int
    rates: list[float] = field(default_factory=list)


def service(job: Job, results: Results) -> None:
    """Measure closed loops at each number of connections, then an open loop at half of the best rate."""
    with _running(job, results) as load:
        for connections in _QUICK_CONNECTIONS if job.quick else _CONNECTIONS:
            _connections(load, connections, 2.0 if job.quick else 8.0, results)
        seconds = 3 if job.quick else 10
        if load.rates and results.has_time(seconds + 8, "open loop at half of the best rate"):
            _half_rate(load, max(load.rates) / 2, seconds, results)


def worker_kill(job: Job, results: Results) -> None:
    """Kill a worker under load: how long until the service is complete, and which requests fail."""
    with _running(job, results) as load:
        window = _measure(load, 8, 1.0, 1.5 if job.quick else 4.0)
        rate = max(1.0, _KILL_LOAD * len(window.latencies_ms) / window.seconds)
        seconds = 10 if job.quick else 20
        stages = [Stage("constant", rate, seconds)]
        plan = workers.Plan(load.service.target, load.images, load.labels, 0.0, (0,), "poisson", Limits(30.0))
        with ThreadPoolExecutor(1) as thread:
            sending = thread.submit(workers.run, plan, stages)
            time.sleep(_KILL_AFTER_S)
            before = _workers(load)
            killed_s, victim = time.time(), before[0]
            victim.kill()
            complete_s = _complete_after(load, victim.pid, len(before))
            sent = sending.result()
        complete = f"{complete_s:.1f} s" if complete_s is not None else f"not within {_RECOVERY_S:g} s"
        what = f"one of {len(before)} workers killed at {rate:,.0f} requests/s: complete again after"
        results.add(what, complete, complete_s=complete_s)
        lost, value = losses(sent.stats, killed_s)
        results.add("requests lost meanwhile", value, lost=lost)


def losses(stats: RequestStats, killed_s: float) -> tuple[int, str]:
    """Return how many requests got no right answer, and in words how many of all, why, and until when."""
    total = IntervalStats()
    for interval in stats.seconds.values():
        total.merge(interval)
    lost = total.outcomes["failed"] + total.outcomes["wrong"]
    text = f"{lost:,} of {sum(total.outcomes.values()):,}"
    if not lost:
        return 0, text
    last_s = max(second for second, interval in stats.seconds.items() if interval.reasons) + 1 - killed_s
    reasons = ", ".join(f"{count} x {reason}" for reason, count in total.reasons.most_common(3))
    return lost, f"{text}: {reasons}; the last was due at most {last_s:.1f} s after the kill"


@contextmanager
def _running(job: Job, results: Results) -> Iterator[Load]:
    """Start the archive's service and the client processes; record how long the first answer took."""
    if job.archive is None:
        raise FileNotFoundError("the archive is missing: see --archive")
    built_for = setting.device(Path(job.archive))
    if built_for != job.device:
        profile = "gpu" if job.device == "cuda" else "cpu"
        raise ValueError(f"{job.archive} is built for {built_for}: `make archive PROFILE={profile}` builds the other")
    images = tuple(read_images(Path(job.images)))
    with tempfile.TemporaryDirectory(prefix="visionserve-gpu-") as name:
        store, archive = Path(name, "store"), Path(job.archive)
        store.mkdir()
        (store / archive.name).symlink_to(archive.resolve())
        launch = services.visionserve_launch(store, archive.stem)
        clients = max(1, min(_MOST_CLIENTS, machine.usable_cores() // 4))
        with (
            server.running(launch, Path(name, "log.txt")) as running,
            ProcessPoolExecutor(clients, get_context("spawn")) as pool,
        ):
            first_s = running.first_answer(images[0].body)
            results.add("first answer after the start", f"{first_s:.1f} s", first_answer_s=first_s)
            labels = dict(calibrate(running.target, images).labels)
            load = Load(running, launch.status_url, images, labels, pool, clients)
            _complete_after(load, 0, 1)
            yield load


def _connections(load: Load, connections: int, seconds: float, results: Results) -> None:
    if not results.has_time(2 * seconds + 3, f"{connections} connections"):
        return
    gpu = _GpuSampler()
    with gpu:
        window = _measure(load, connections, seconds / 4, seconds)
    rate = len(window.latencies_ms) / window.seconds
    load.rates.append(rate)
    p50, p99 = percentile(window.latencies_ms, 0.5), percentile(window.latencies_ms, 0.99)
    used = f"CPU {window.server_cpu_s / window.seconds:.1f} cores{gpu.text()}"
    faults = sum(window.faults.values())
    results.add(
        f"{connections} connection{'s'[: connections > 1]}",
        f"{rate:,.0f} images/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms, {used}, {faults} faults",
        images_per_s=rate,
        p50_ms=p50,
        p99_ms=p99,
        server_cores=window.server_cpu_s / window.seconds,
        gpu_share=gpu.mean,
        faults=faults,
    )


def _half_rate(load: Load, rate: float, seconds: int, results: Results) -> None:
    stages = [Stage("constant", rate, seconds)]
    plan = workers.Plan(load.service.target, load.images, load.labels, 0.0, (0,), "poisson", Limits())
    sent = workers.run(plan, stages, load.clients)
    record = RunRecord("open", "constant", load.service.target.url, "poisson", stages, {}, "", stats=sent.stats)
    record.starts_s.append(sent.start_s)
    for point in summary.points(record):
        generator = (
            f"; the generator used {point.generator_share:.0%} of a core" if point.generator_share > 0.85 else ""
        )
        value = f"p50 {point.p50_ms:.1f} ms, p99 {point.p99_ms:.1f} ms, errors {point.error_share:.2%}{generator}"
        results.add(f"open loop, {rate:,.0f} arrivals/s (half)", value, p50_ms=point.p50_ms, p99_ms=point.p99_ms)


def _measure(load: Load, connections: int, warm_up_s: float, seconds: float) -> Window:
    """Load the service from several client processes and add up what they saw."""
    clients = min(load.clients, connections)
    shares = [connections // clients + (i < connections % clients) for i in range(clients)]
    start_s = time.time() + 0.5
    futures = [
        load.pool.submit(_client, load.service.target, load.images, load.labels, share, start_s, warm_up_s, seconds, i)
        for i, share in enumerate(shares)
    ]
    time.sleep(max(0.0, start_s + warm_up_s - time.time()))
    cpu_s = load.service.cpu_s()
    time.sleep(seconds)
    cpu_s = load.service.cpu_s() - cpu_s
    windows = [future.result() for future in futures]
    total = Window(statistics.fmean(window.seconds for window in windows), server_cpu_s=cpu_s)
    for window in windows:
        total.latencies_ms += window.latencies_ms
        total.faults.update(window.faults)
    return total


def _client(
    target: Target,
    images: tuple[EncodedImage, ...],
    labels: dict[str, str],
    connections: int,
    start_s: float,
    warm_up_s: float,
    seconds: float,
    process: int,
) -> Window:
    workload = Workload(images, labels, process=process)
    time.sleep(max(0.0, start_s - time.time()))
    return client.measure(target, workload, connections, warm_up_s, seconds, lambda: 0.0)


def _workers(load: Load) -> list[psutil.Process]:
    """Return TorchServe's worker processes."""
    processes = []
    for process in load.service.processes():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if any(argument.endswith(_WORKER) for argument in process.cmdline()):
                processes.append(process)
    return processes


def _complete_after(load: Load, killed_pid: int, count: int) -> float | None:
    """Return the seconds until ``count`` workers other than a killed one are ready; None when that takes too long."""
    start = time.monotonic()
    while time.monotonic() - start < _RECOVERY_S:
        pids = {process.pid for process in _workers(load)} - {killed_pid}
        if len(pids) >= count and _all_ready(load.status_url, count):
            return time.monotonic() - start
        time.sleep(_POLL_S)
    return None


def _all_ready(status_url: str, count: int) -> bool:
    parts = urlsplit(status_url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
    try:
        connection.request("GET", "/models")
        (model,) = json.loads(connection.getresponse().read())["models"]
        return bool(model["workers"]["ready"] >= max(count, model["workers"]["total"]))
    except (OSError, http.client.HTTPException, ValueError, KeyError):
        return False
    finally:
        connection.close()


class _GpuSampler:
    """How busy the first GPU is, sampled in a thread; nothing without nvidia-smi."""

    def __init__(self) -> None:
        self._samples: list[tuple[float, float]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "_GpuSampler":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def mean(self) -> float | None:
        """The mean share of time that it computed, 0-1."""
        return statistics.fmean(share for share, _ in self._samples) / 100 if self._samples else None

    def text(self) -> str:
        """Return it for a table."""
        if self.mean is None:
            return ""
        return f", GPU {self.mean:.0%}, {max(memory for _, memory in self._samples) / 1000:.1f} GB of its memory"

    def _sample(self) -> None:
        while not self._ended.wait(0.5):
            figures = machine.nvidia_smi("utilization.gpu,memory.used")
            if figures is None:
                return
            share, memory = figures.split(",")
            self._samples.append((float(share), float(memory)))


if __name__ == "__main__":
    # Ended by the parent, a part stops its server.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run_part({"service": service, "worker-kill": worker_kill})
