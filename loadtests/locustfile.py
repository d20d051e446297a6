"""Locust's part: users that post an image, wait for the answer and post the next (a closed loop).

`python -m loadtests run --loop closed` starts it. On its own, also with --processes:
    locust -f loadtests/locustfile.py --headless --host http://127.0.0.1:8080 --stages 4x10,8x10
Without `--stages` it takes Locust's --users and --run-time, or its web page. A closed loop cannot show what a queue
does to independent clients: its users slow down with the service. `--loop open` does.
"""

import argparse
import json
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import gevent
from gevent import get_hub
from gevent.event import AsyncResult
from locust import FastHttpUser, LoadTestShape, constant, events, task
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtests.load import shapes
from loadtests.load.http_client import Target, parse_headers
from loadtests.load.images import EncodedImage
from loadtests.load.workload import Workload, add_arguments, load_images
from loadtests.results.stats import RequestStats
from loadtests.results.validation import CalibrationError, Outcome, calibrate, judge

_log = logging.getLogger(__name__)
_NOT_MEASURED = 3
# In a worker's report; Locust's own statistics are under "stats".
_STATS_KEY = "request_stats"


@dataclass
class Plan:
    """What one Locust process sends and has recorded. ``started_s`` is in seconds since 1970."""

    options: argparse.Namespace | None = None
    images: AsyncResult | None = None
    target: Target | None = None
    workload: Workload | None = None
    stats: RequestStats = field(default_factory=RequestStats)
    started_s: float = 0.0
    process: str = "locust"
    cpu_watch: gevent.Greenlet | None = None


class ImageUser(FastHttpUser):
    """Posts images, one after the other, without a pause."""

    wait_time = constant(0)
    plan: ClassVar[Plan] = Plan()

    @task
    def post(self) -> None:
        """Post one body and judge its answer."""
        target, workload = self.plan.target, self.plan.workload
        if target is None or workload is None:
            return
        item = workload.next()
        name = f"invalid: {item.name}" if item.invalid else "image"
        sent_s, start = time.time(), time.perf_counter()
        # A bytes body goes out as it is, whatever the annotation says.
        body: Any = item.body
        with self.client.post(
            target.path, data=body, headers=dict(target.headers), name=name, catch_response=True
        ) as response:
            elapsed_ms = (time.perf_counter() - start) * 1000
            if response.status_code:
                timing = response.headers.get("Server-Timing", "")
                outcome = judge(item, response.status_code, response.content or b"", timing)
            else:
                outcome = Outcome("failed", f"no answer ({type(response.error).__name__})")
            if outcome.kind in ("ok", "rejected"):
                response.success()
            else:
                response.failure(outcome.reason)
        self.plan.stats.record(sent_s, outcome, elapsed_ms, elapsed_ms)


class Stages(LoadTestShape):
    """The users of `--stages`, or else --users for --run-time."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        """Return how many users there should be now, and how fast to get there; None at the end. Locust calls it."""
        parsed = ImageUser.plan.options
        if parsed is None:
            return None
        elapsed_s = self.get_run_time()  # type: ignore[no-untyped-call]
        if not parsed.stages:
            over = parsed.run_time and elapsed_s > parsed.run_time
            return None if over else (parsed.num_users or 1, parsed.spawn_rate or 100)
        level = shapes.level_at(shapes.from_text(parsed.stages), elapsed_s)
        return None if level is None else (round(level), max(level, 1.0))


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def _add_options(parser: Any) -> None:
    parser.add_argument("--path", default="/predictions/flowers", help="where images are posted, below --host")
    parser.add_argument("--stages", default="", help="USERSxSECONDS,...: the load over time")
    parser.add_argument("--stats-file", default="", help="a JSON file for the statistics of all requests")
    add_arguments(parser)


@events.init.add_listener  # type: ignore[untyped-decorator]
def _prepare(environment: Environment, **_: Any) -> None:
    plan = ImageUser.plan
    plan.options = environment.parsed_options
    if plan.options and not isinstance(environment.runner, MasterRunner):
        # In a thread: a worker that makes images for seconds must send heartbeats meanwhile, or the master drops it.
        plan.images = get_hub().threadpool.spawn(load_images, plan.options)
        ImageUser.network_timeout = ImageUser.connection_timeout = plan.options.timeout_s


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def _start(environment: Environment, **_: Any) -> None:
    plan, parsed = ImageUser.plan, ImageUser.plan.options
    plan.stats, plan.started_s = RequestStats(), time.time()
    if isinstance(environment.runner, WorkerRunner):
        plan.process = f"locust worker {environment.runner.worker_index}"
    plan.cpu_watch = plan.cpu_watch or gevent.spawn(_watch_cpu, plan)
    if isinstance(environment.runner, MasterRunner) or parsed is None or plan.images is None:
        return
    try:
        images: list[EncodedImage] = plan.images.get()
        url = f"{environment.host or ''}{parsed.path}"
        plan.target = Target.parse(url, parse_headers(parsed.header), parsed.allow_remote)
        expected = calibrate(plan.target, images).labels
        # Each process has its own order, otherwise they would all post the same image at the same time.
        process = environment.runner.worker_index if isinstance(environment.runner, WorkerRunner) else 0
        plan.workload = Workload(images, expected, parsed.invalid, parsed.seed, process)
    except (CalibrationError, ValueError) as error:
        _log.error("%s", error)
        environment.process_exit_code = _NOT_MEASURED
        if environment.runner:
            environment.runner.quit()


def _watch_cpu(plan: Plan) -> None:
    """Record how much CPU time this process uses in each second, as long as it lives."""
    cpu_s, second = time.process_time(), int(time.time())
    while True:
        gevent.sleep(max(0.0, second + 1 - time.time()))
        now_cpu_s, now_second = time.process_time(), int(time.time())
        plan.stats.record_cpu(second, plan.process, now_cpu_s - cpu_s, now_second - second)
        cpu_s, second = now_cpu_s, max(now_second, second + 1)


@events.report_to_master.add_listener  # type: ignore[untyped-decorator]
def _report(data: dict[str, Any], **_: Any) -> None:
    plan = ImageUser.plan
    data[_STATS_KEY], plan.stats = plan.stats.to_json(), RequestStats()


@events.worker_report.add_listener  # type: ignore[untyped-decorator]
def _collect(client_id: str, data: dict[str, Any], **_: Any) -> None:
    if _STATS_KEY in data:
        ImageUser.plan.stats.merge(RequestStats.from_json(data[_STATS_KEY]))
    else:
        _log.warning("%s sent no statistics: it runs another locustfile", client_id)


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def _judge(environment: Environment, **_: Any) -> None:
    """A run without requests, because its workers were lost or its target is wrong, must not pass for a good one."""
    if not isinstance(environment.runner, WorkerRunner) and not environment.stats.total.num_requests:
        _log.error("nothing was measured: no request was sent")
        environment.process_exit_code = _NOT_MEASURED


@events.quit.add_listener  # type: ignore[untyped-decorator]
def _write(**_: Any) -> None:
    plan, parsed = ImageUser.plan, ImageUser.plan.options
    if parsed is None or not parsed.stats_file or parsed.worker:
        return
    Path(parsed.stats_file).write_text(json.dumps({"started_s": plan.started_s, "stats": plan.stats.to_json()}))
