import math

import pytest

from launcher.archive import Archive
from launcher.torchserve_api import Answered, Described, NoAnswer
from launcher.workers import GONE_AFTER_S, START_TIMEOUT_S, Watch

ROSES = Archive("roses", "1.0", "0" * 64, {})


class FakeServer:
    """A TorchServe whose workers answer in turn."""

    def __init__(self, total: int = 2) -> None:
        self.total = total
        self.pids: list[int] = []
        self.loaded: list[int] = []
        self.described = 0
        self.says_who = True

    def workers(self, _expected: int) -> set[int]:
        return set(self.pids)

    def describe(self, _model: str) -> Described | None:
        self.described += 1
        return Described(self.total, frozenset(self.pids))

    def ask(self, _model: str) -> Answered:
        if not self.loaded:
            raise NoAnswer("nobody")
        self.loaded.append(self.loaded.pop(0))
        return Answered({"predictions": []}, self.loaded[-1] if self.says_who else None)


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
def watch(server: FakeServer, clock: Clock) -> Watch:
    return Watch(server, [ROSES], clock)


def run(watch: Watch, server: FakeServer, *pids: int) -> None:
    """Let these processes run and answer once each."""
    server.pids, server.loaded = list(pids), list(pids)
    watch.tick()
    for _ in pids:
        watch.ask_once(watch.models["roses"])


def test_it_is_ready_only_when_every_worker_has_answered(watch: Watch, server: FakeServer) -> None:
    assert watch.why_not_ready() == "0 of its workers of roses have answered so far"
    server.pids = [1, 2]
    watch.tick()
    server.loaded = [1]
    for _ in range(3):
        watch.ask_once(watch.models["roses"])
    assert watch.why_not_ready() == "1 of 2 workers of roses have answered so far"
    server.loaded = [2]
    watch.ask_once(watch.models["roses"])
    assert watch.why_not_ready() == ""
    assert watch.status(watch.models["roses"]) == "ready"


def test_an_answer_of_a_worker_that_is_not_known_yet_counts_when_it_is(watch: Watch, server: FakeServer) -> None:
    server.loaded = [1, 2]
    assert [watch.ask_once(watch.models["roses"]) for _ in range(3)] == [True, True, False]
    assert not watch.complete()
    server.pids = [1, 2]
    watch.tick()
    assert watch.complete()


def test_one_worker_is_enough_after_the_start_and_a_new_one_counts_when_it_has_answered(
    watch: Watch, server: FakeServer
) -> None:
    run(watch, server, 1, 2)
    server.pids, server.loaded = [1], [1]
    watch.tick()
    assert (watch.why_not_ready(), watch.models["roses"].ready, watch.models["roses"].deaths) == ("", 1, 1)
    server.pids = [1, 3]
    watch.tick()
    assert watch.models["roses"].ready == 1
    server.loaded = [3]
    watch.ask_once(watch.models["roses"])
    assert watch.models["roses"].ready == 2


def test_without_a_worker_it_is_not_ready_and_after_a_while_gone_for_good(
    watch: Watch, server: FakeServer, clock: Clock
) -> None:
    run(watch, server, 1, 2)
    server.pids, server.loaded = [], []
    watch.tick()
    assert "no worker of roses is left" in watch.why_not_ready()
    assert watch.failure() == ""
    clock.now += GONE_AFTER_S + 1
    watch.tick()
    assert "No worker of roses has answered for 120 s" in watch.failure()
    assert watch.status(watch.models["roses"]) == "failed"


def test_workers_that_come_back_in_time_are_no_failure(watch: Watch, server: FakeServer, clock: Clock) -> None:
    run(watch, server, 1, 2)
    server.pids, server.loaded = [], []
    watch.tick()
    clock.now += GONE_AFTER_S - 10
    run(watch, server, 3, 4)
    clock.now += GONE_AFTER_S
    watch.tick()
    assert (watch.failure(), watch.why_not_ready()) == ("", "")


def test_workers_that_end_while_they_load_are_a_failure_soon(watch: Watch, server: FakeServer) -> None:
    for pid in range(6):
        assert watch.failure() == ""
        server.pids = [pid]
        watch.tick()
    server.pids = []
    watch.tick()
    assert watch.failure() == "The workers of roses end while they load: the log above says why."


def test_a_start_that_takes_too_long_is_a_failure(watch: Watch, server: FakeServer, clock: Clock) -> None:
    server.pids = [1, 2]
    clock.now += START_TIMEOUT_S + 1
    watch.tick()
    assert "has not answered with every worker" in watch.failure()


def test_an_archive_that_cannot_say_who_answers_is_named_with_the_mend(watch: Watch, server: FakeServer) -> None:
    server.says_who = False
    run(watch, server, 1, 2)
    assert "`make archive`" in watch.failure()


def test_the_management_api_is_asked_only_while_a_process_is_unknown(watch: Watch, server: FakeServer) -> None:
    run(watch, server, 1, 2)
    asked = server.described
    for _ in range(5):
        watch.tick()
    assert server.described == asked


def test_a_challenge_is_met_when_every_worker_has_answered_anew(watch: Watch, server: FakeServer) -> None:
    run(watch, server, 1, 2)
    assert watch.all_answered(-math.inf)
    since = watch.challenge()
    assert not watch.all_answered(since)
    assert watch.ask_once(watch.models["roses"])
    assert not watch.all_answered(since)
    assert watch.ask_once(watch.models["roses"])
    assert watch.all_answered(since)


def test_draining_is_for_good_and_not_ready(watch: Watch, server: FakeServer) -> None:
    run(watch, server, 1, 2)
    watch.drain()
    first = watch.drained_at
    watch.drain()
    assert watch.drained_at == first
    assert watch.why_not_ready() == "draining"
    assert watch.status(watch.models["roses"]) == "draining"


def test_the_time_to_the_first_answer_is_kept(watch: Watch, server: FakeServer, clock: Clock) -> None:
    clock.now += 5
    run(watch, server, 1, 2)
    assert watch.start_s == pytest.approx(5, abs=0.1)
    clock.now += 5
    watch.ask_once(watch.models["roses"])
    assert watch.start_s == pytest.approx(5, abs=0.1)


def test_its_threads_find_every_worker_and_end(server: FakeServer) -> None:
    server.pids, server.loaded = [1, 2], [1, 2]
    watch = Watch(server, [ROSES])
    watch.start()
    with watch._changed:
        assert watch._changed.wait_for(lambda: watch.complete(), timeout=20)
    watch.stop()
