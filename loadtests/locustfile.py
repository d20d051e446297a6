"""Locust's part: users who post a photograph, wait for the answer and post the next (a closed loop).

`python -m loadtests run --loop closed` starts it. By itself, also with --processes:
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

from gevent import get_hub
from gevent.event import AsyncResult
from locust import FastHttpUser, LoadTestShape, constant, events, task
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtests.load import options, shapes
from loadtests.load.images import Photograph
from loadtests.load.target import Target, parse_headers
from loadtests.load.workload import Traffic
from loadtests.results import expected_labels
from loadtests.results.expected_labels import CalibrationError
from loadtests.results.stats import Ledger
from loadtests.results.validation import Verdict, judge

_log = logging.getLogger(__name__)
_NOT_MEASURED = 3


@dataclass
class Plan:
    """What one Locust process sends and has written down. ``started_s`` is in seconds since 1970."""

    options: argparse.Namespace | None = None
    photographs: AsyncResult | None = None
    target: Target | None = None
    traffic: Traffic | None = None
    ledger: Ledger = field(default_factory=Ledger)
    started_s: float = 0.0
    cpu_s: float = 0.0


class Photographer(FastHttpUser):
    """Posts photographs, one after the other, without a pause."""

    wait_time = constant(0)
    plan: ClassVar[Plan] = Plan()

    @task
    def post(self) -> None:
        """Post one body and judge its answer."""
        target, traffic = self.plan.target, self.plan.traffic
        if target is None or traffic is None:
            return
        item = traffic.next()
        name = f"broken: {item.name}" if item.broken else "photograph"
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
                outcome = Verdict("failed", f"no answer ({type(response.error).__name__})")
            if outcome.kind in ("ok", "refused"):
                response.success()
            else:
                response.failure(outcome.reason)
        self.plan.ledger.record(sent_s, outcome, elapsed_ms, elapsed_ms)


class Stages(LoadTestShape):
    """The users that `--stages` wants, else --users for --run-time."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        """Return how many users there should be now, and how fast to get there; None at the end. Locust calls it."""
        parsed = Photographer.plan.options
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
    parser.add_argument("--path", default="/predictions/flowers", help="where photographs are posted, below --host")
    parser.add_argument("--stages", default="", help="USERSxSECONDS,...: the load over time")
    parser.add_argument("--ledger", default="", help="a JSON file to write what became of every request to")
    options.add_traffic(parser)


@events.init.add_listener  # type: ignore[untyped-decorator]
def _prepare(environment: Environment, **_: Any) -> None:
    plan = Photographer.plan
    plan.options = environment.parsed_options
    if plan.options and not isinstance(environment.runner, MasterRunner):
        # In a thread: a worker that draws for seconds must send its heartbeats meanwhile, or the master gives it up.
        plan.photographs = get_hub().threadpool.spawn(options.chosen_photographs, plan.options)
        Photographer.network_timeout = Photographer.connection_timeout = plan.options.timeout_s


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def _start(environment: Environment, **_: Any) -> None:
    plan, parsed = Photographer.plan, Photographer.plan.options
    plan.ledger, plan.started_s, plan.cpu_s = Ledger(), time.time(), time.process_time()
    if isinstance(environment.runner, MasterRunner) or parsed is None or plan.photographs is None:
        return
    try:
        photographs: list[Photograph] = plan.photographs.get()
        url = f"{environment.host or ''}{parsed.path}"
        plan.target = Target.parse(url, parse_headers(parsed.header), parsed.allow_remote)
        expected = expected_labels.calibrate(plan.target, photographs).labels
        # Each process its own order, otherwise they would all post the same photograph at the same time.
        place = environment.runner.worker_index if isinstance(environment.runner, WorkerRunner) else 0
        plan.traffic = Traffic(photographs, expected, parsed.broken, parsed.seed + place)
    except (CalibrationError, ValueError) as error:
        _log.error("%s", error)
        environment.process_exit_code = _NOT_MEASURED
        if environment.runner:
            environment.runner.quit()


@events.report_to_master.add_listener  # type: ignore[untyped-decorator]
def _report(client_id: str, data: dict[str, Any], **_: Any) -> None:
    plan = Photographer.plan
    plan.ledger.cpu_s[client_id] = time.process_time() - plan.cpu_s
    data["ledger"], plan.ledger = plan.ledger.to_json(), Ledger()


@events.worker_report.add_listener  # type: ignore[untyped-decorator]
def _collect(client_id: str, data: dict[str, Any], **_: Any) -> None:
    if "ledger" in data:
        Photographer.plan.ledger.merge(Ledger.from_json(data["ledger"]))
    else:
        _log.warning("%s sent no ledger: it runs another locustfile", client_id)


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def _judge(environment: Environment, **_: Any) -> None:
    """A run that asked nothing, because its workers were lost or its target is wrong, must not pass for a good one."""
    if not isinstance(environment.runner, WorkerRunner) and not environment.stats.total.num_requests:
        _log.error("nothing was measured: no request was sent")
        environment.process_exit_code = _NOT_MEASURED


@events.quit.add_listener  # type: ignore[untyped-decorator]
def _write(**_: Any) -> None:
    plan, parsed = Photographer.plan, Photographer.plan.options
    if parsed is None or not parsed.ledger or parsed.worker:
        return
    plan.ledger.cpu_s.setdefault("locust", time.process_time() - plan.cpu_s)
    Path(parsed.ledger).write_text(json.dumps({"started_s": plan.started_s, "ledger": plan.ledger.to_json()}))
