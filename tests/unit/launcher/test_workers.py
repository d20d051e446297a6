import math
from collections.abc import Collection

import pytest

from launcher.archive import Archive
from launcher.torchserve_api import ModelDescription, NoAnswer, ProbeAnswer, Refused
from launcher.workers import (
    GONE_AFTER_S,
    INCOMPLETE_AFTER_S,
    NOT_LIVE_AFTER_S,
    PROBE_S,
    SILENT_S,
    START_TIMEOUT_S,
    WorkerMonitor,
)

ROSES = Archive("roses", "1.0", "0" * 64, {})


class FakeServer:
    """A TorchServe whose workers answer in turn."""

    def __init__(self, total: int = 2) -> None:
        self.total = total
        self.pids: list[int] = []
        self.loaded: list[int] = []
        self.idle: dict[int, float] = {}
        self.descriptions = 0
        self.says_who = True
        self.silent = False
        self.refuses = ""
        self.error = ""

    def alive(self, pids: Collection[int]) -> set[int]:
        return set(self.pids) & set(pids)

    def idle_s(self, pids: Collection[int]) -> dict[int, float]:
        return {pid: self.idle[pid] for pid in pids if pid in self.idle}

    def describe(self, _model: str) -> ModelDescription | None:
        self.descriptions += 1
        return None if self.silent else ModelDescription(self.total, frozenset(self.pids))

    def refusal(self, _name: str, _version: str) -> str:
        return self.refuses

    def predict(self, _model: str, _timeout_s: float) -> ProbeAnswer:
        if self.error:
            raise Refused(self.error)
        if not self.loaded:
            raise NoAnswer("nobody")
        self.loaded.append(self.loaded.pop(0))
        return ProbeAnswer({"predictions": []}, self.loaded[-1] if self.says_who else None)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def monitor(server: FakeServer, clock: Clock) -> WorkerMonitor:
    return WorkerMonitor(server, [ROSES], clock)


def run(monitor: WorkerMonitor, server: FakeServer, *pids: int) -> None:
    """Let these processes run and answer once each."""
    server.pids, server.loaded = list(pids), list(pids)
    monitor.tick()
    for _ in pids:
        monitor.probe_once(monitor.models["roses/1.0"])


def test_it_is_ready_only_when_every_worker_has_answered(monitor: WorkerMonitor, server: FakeServer) -> None:
    assert monitor.not_ready_reason() == "0 of its workers of roses 1.0 have answered so far"
    server.pids = [1, 2]
    monitor.tick()
    server.loaded = [1]
    for _ in range(3):
        monitor.probe_once(monitor.models["roses/1.0"])
    assert monitor.not_ready_reason() == "1 of 2 workers of roses 1.0 have answered so far"
    server.loaded = [2]
    monitor.probe_once(monitor.models["roses/1.0"])
    assert monitor.not_ready_reason() == ""
    assert monitor.status(monitor.models["roses/1.0"]) == "ready"


def test_a_refused_probe_is_reported_with_its_status(monitor: WorkerMonitor, server: FakeServer, clock: Clock) -> None:
    server.pids, server.error = [1], "status 422: top_k must be at most 2."
    monitor.tick()
    monitor.probe_once(monitor.models["roses/1.0"])
    reason = "(a test request got status 422: top_k must be at most 2.)"
    assert monitor.not_ready_reason() == f"0 of 2 workers of roses 1.0 have answered so far {reason}"
    clock.now += 300
    monitor.tick()
    assert f"within 240 s {reason}: see" in monitor.failure()
    server.error, server.loaded = "", [1]
    monitor.probe_once(monitor.models["roses/1.0"])
    assert monitor.models["roses/1.0"].refusal == ""


def test_an_answer_of_a_worker_that_is_not_known_yet_counts_when_it_is(
    monitor: WorkerMonitor, server: FakeServer
) -> None:
    server.loaded = [1, 2]
    assert [monitor.probe_once(monitor.models["roses/1.0"]) for _ in range(3)] == [True, True, False]
    assert not monitor.complete()
    server.pids = [1, 2]
    monitor.tick()
    assert monitor.complete()


def test_one_worker_is_enough_after_the_start_and_a_new_one_counts_when_it_has_answered(
    monitor: WorkerMonitor, server: FakeServer
) -> None:
    run(monitor, server, 1, 2)
    server.pids, server.loaded = [1], [1]
    monitor.tick()
    assert (monitor.not_ready_reason(), monitor.models["roses/1.0"].ready, monitor.models["roses/1.0"].deaths) == (
        "",
        1,
        1,
    )
    server.pids = [1, 3]
    monitor.tick()
    assert monitor.models["roses/1.0"].ready == 1
    server.loaded = [3]
    monitor.probe_once(monitor.models["roses/1.0"])
    assert monitor.models["roses/1.0"].ready == 2


def test_without_a_worker_it_is_not_ready_and_after_a_while_gone_for_good(
    monitor: WorkerMonitor, server: FakeServer, clock: Clock
) -> None:
    run(monitor, server, 1, 2)
    server.pids, server.loaded = [], []
    monitor.tick()
    assert "roses 1.0 has no worker left" in monitor.not_ready_reason()
    assert monitor.failure() == ""
    clock.now += GONE_AFTER_S + 1
    monitor.tick()
    assert "No worker of roses 1.0 has answered for 120 s" in monitor.failure()
    assert monitor.status(monitor.models["roses/1.0"]) == "failed"


def test_workers_that_come_back_in_time_are_no_failure(
    monitor: WorkerMonitor, server: FakeServer, clock: Clock
) -> None:
    run(monitor, server, 1, 2)
    server.pids, server.loaded = [], []
    monitor.tick()
    clock.now += GONE_AFTER_S - 10
    run(monitor, server, 3, 4)
    clock.now += SILENT_S - 1
    monitor.tick()
    assert (monitor.failure(), monitor.not_ready_reason()) == ("", "")


def test_workers_that_end_while_they_load_are_a_failure_soon(monitor: WorkerMonitor, server: FakeServer) -> None:
    for pid in range(6):
        assert monitor.failure() == ""
        server.pids = [pid]
        monitor.tick()
    server.pids = []
    monitor.tick()
    assert monitor.failure() == "The workers of roses 1.0 end while they load: see their log above."


def test_a_start_that_takes_too_long_is_a_failure(monitor: WorkerMonitor, server: FakeServer, clock: Clock) -> None:
    server.pids = [1, 2]
    clock.now += START_TIMEOUT_S + 1
    monitor.tick()
    assert "has not answered with every worker" in monitor.failure()


def test_an_archive_that_cannot_say_who_answers_is_named_with_the_mend(
    monitor: WorkerMonitor, server: FakeServer
) -> None:
    server.says_who = False
    run(monitor, server, 1, 2)
    assert "`make archive`" in monitor.failure()


def test_the_management_api_is_asked_now_and_then(monitor: WorkerMonitor, server: FakeServer, clock: Clock) -> None:
    run(monitor, server, 1, 2)
    monitor.tick()
    before = server.descriptions
    for _ in range(5):
        monitor.tick()
    assert server.descriptions == before
    clock.now += 3
    monitor.tick()
    assert server.descriptions == before + 1


def test_workers_scaled_up_and_down_are_followed_and_no_restart(
    monitor: WorkerMonitor, server: FakeServer, clock: Clock
) -> None:
    model = monitor.models["roses/1.0"]
    run(monitor, server, 1, 2)
    server.total, server.pids, server.loaded = 3, [1, 2, 3], [3]
    clock.now += 3
    monitor.tick()
    assert (model.ready, model.total, monitor.not_ready_reason()) == (2, 3, "")
    # A drain asks the third one too.
    since = monitor.probe_all()
    server.loaded = [1, 2, 3]
    for _ in range(3):
        monitor.probe_once(model)
    assert monitor.all_answered(since)
    assert model.ready == 3
    server.total, server.pids, server.loaded = 1, [2], [2]
    monitor.tick()
    assert (model.ready, model.total, model.deaths) == (1, 1, 0)
    clock.now += INCOMPLETE_AFTER_S + 1
    monitor.probe_once(model)
    monitor.tick()
    assert monitor.failure() == ""


@pytest.mark.parametrize("silent_api", [False, True], ids=["api-answers", "api-silent-at-first"])
def test_workers_scaled_down_may_end_one_by_one_and_a_crash_beside_them_counts(
    monitor: WorkerMonitor, server: FakeServer, silent_api: bool
) -> None:
    model = monitor.models["roses/1.0"]
    server.total = 4
    run(monitor, server, 1, 2, 3, 4)
    # Scaled to two; 3 and 4 end in different looks, and 2 crashes and is replaced by 5.
    server.total, server.pids = 2, [1, 2, 4]
    server.silent = silent_api
    monitor.tick()
    server.silent = False
    monitor.tick()
    assert (model.total, model.deaths) == (2, 0)
    server.pids = [1, 2]
    monitor.tick()
    assert model.deaths == 0
    server.pids = [1, 5]
    monitor.tick()
    assert (model.workers, model.deaths) == ({1, 5}, 1)


def test_workers_that_hang_are_noticed_and_not_before_their_time(
    monitor: WorkerMonitor, server: FakeServer, clock: Clock
) -> None:
    run(monitor, server, 1, 2)
    server.loaded = []
    clock.now += SILENT_S - 1
    monitor.tick()
    assert (monitor.not_ready_reason(), monitor.not_live_reason()) == ("", "")
    clock.now += 2
    monitor.tick()
    assert monitor.not_ready_reason() == "no worker of roses 1.0 has answered for 12 s"
    assert monitor.not_live_reason() == ""
    clock.now += NOT_LIVE_AFTER_S - SILENT_S
    monitor.tick()
    assert monitor.not_live_reason() == "no worker of roses 1.0 has answered for 60 s"
    assert monitor.failure() == ""
    server.loaded = [1]
    monitor.probe_once(monitor.models["roses/1.0"])
    assert (monitor.not_ready_reason(), monitor.not_live_reason(), monitor.models["roses/1.0"].ready) == ("", "", 1)


def test_workers_busy_with_requests_need_no_probe(monitor: WorkerMonitor, server: FakeServer, clock: Clock) -> None:
    model = monitor.models["roses/1.0"]
    run(monitor, server, 1, 2)
    assert not monitor._needs_probe(model)
    clock.now += PROBE_S + 1
    assert monitor._needs_probe(model)
    server.idle = {1: 0.1, 2: 0.2}
    monitor.tick()
    assert not monitor._needs_probe(model)
    clock.now += SILENT_S
    monitor.tick()
    assert (model.ready, monitor.not_ready_reason()) == (2, "")


def test_workers_that_crash_whenever_they_are_restarted_end_the_service_in_time(
    monitor: WorkerMonitor, server: FakeServer, clock: Clock
) -> None:
    run(monitor, server, 1, 2)
    started = clock.now
    pid = 10
    while not monitor.failure():
        # TorchServe starts others again and again, and each ends before it answers.
        pid += 1
        server.pids, server.loaded = [pid], []
        monitor.tick()
        server.pids = []
        monitor.tick()
        clock.now += 8
    assert "No worker of roses 1.0 has answered for 120 s" in monitor.failure()
    assert clock.now - started < GONE_AFTER_S + 20


def test_one_of_two_workers_that_never_comes_back_ends_the_service(
    monitor: WorkerMonitor, server: FakeServer, clock: Clock
) -> None:
    run(monitor, server, 1, 2)
    started = clock.now
    server.pids, server.loaded = [1], [1]
    while not monitor.failure():
        monitor.tick()
        monitor.probe_once(monitor.models["roses/1.0"])
        assert monitor.not_ready_reason() == "" or monitor.failure()
        clock.now += 5
    assert "only 1 of 2 workers of roses 1.0 have answered" in monitor.failure()
    assert INCOMPLETE_AFTER_S <= clock.now - started < INCOMPLETE_AFTER_S + 20
    assert monitor.answers()


def test_a_challenge_is_met_when_every_worker_has_answered_anew(monitor: WorkerMonitor, server: FakeServer) -> None:
    run(monitor, server, 1, 2)
    assert monitor.all_answered(-math.inf)
    since = monitor.probe_all()
    assert not monitor.all_answered(since)
    assert monitor.probe_once(monitor.models["roses/1.0"])
    assert not monitor.all_answered(since)
    assert monitor.probe_once(monitor.models["roses/1.0"])
    assert monitor.all_answered(since)


def test_draining_is_for_good_and_not_ready(monitor: WorkerMonitor, server: FakeServer) -> None:
    run(monitor, server, 1, 2)
    monitor.begin_drain()
    first = monitor.draining_since
    monitor.begin_drain()
    assert monitor.draining_since == first
    assert monitor.not_ready_reason() == "draining"
    assert monitor.status(monitor.models["roses/1.0"]) == "draining"


def test_the_time_to_the_first_answer_is_kept(monitor: WorkerMonitor, server: FakeServer, clock: Clock) -> None:
    clock.now += 5
    run(monitor, server, 1, 2)
    assert monitor.start_s == pytest.approx(5, abs=0.1)
    clock.now += 5
    monitor.probe_once(monitor.models["roses/1.0"])
    assert monitor.start_s == pytest.approx(5, abs=0.1)


def test_its_threads_find_every_worker_and_end(server: FakeServer) -> None:
    server.pids, server.loaded = [1, 2], [1, 2]
    monitor = WorkerMonitor(server, [ROSES])
    monitor.start()
    with monitor._changed:
        assert monitor._changed.wait_for(lambda: monitor.complete(), timeout=20)
    monitor.stop()


def test_a_refused_model_ends_the_start_with_its_reason(monitor: WorkerMonitor, server: FakeServer) -> None:
    server.pids = [1, 2]
    monitor.tick()
    assert monitor.failure() == ""
    server.refuses = "model.onnx has no outputs."
    monitor.tick()
    assert monitor.failure().endswith(" cannot be served here: model.onnx has no outputs.")
    assert monitor.refused()


def test_a_refusal_after_the_start_is_one_worker_less(monitor: WorkerMonitor, server: FakeServer) -> None:
    run(monitor, server, 1, 2)
    server.refuses = "the device is lost"
    monitor.tick()
    assert (monitor.failure(), monitor.refused()) == ("", False)
