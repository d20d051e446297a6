"""Faults of a running service under a constant load: what is lost, if anything, and that it comes back by itself."""

import json
import struct
import subprocess
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.cluster.conftest import CLUSTER
from tests.cluster.kube import (
    SELECTOR,
    container_status,
    events,
    in_namespace,
    kill_process,
    kubectl,
    names,
    overview,
    pod,
    pods,
    ready_pods,
    until,
)
from tests.cluster.traffic import RATE, Traffic

pytestmark = CLUSTER
Record = Callable[[str], None]
WORKER, JAVA = "model_service_worker", "java-runtime/bin/java"
# Until a pod without Java is out of the Service: two readiness probes, two seconds apart, and the endpoints' way.
UNREADY_S = 12
# What a worker has in hand at most.
BATCH = 4
# What two workers and Java need, and one large image no more.
LITTLE_MEMORY = "800Mi"
OOM_TIMEOUT_S = 90
_BUDGET = "violate the pod's disruption budget"


def test_a_deleted_pod_is_replaced_and_nothing_is_lost(steady: Traffic, record: Record) -> None:
    before = names(pods())
    with steady.load() as outcome:
        in_namespace("delete", "pod", min(before), "--timeout=180s")
        until(lambda: len(ready_pods()) == 2, overview)
    record(f"a pod deleted: {outcome}")
    assert not outcome.lost


def test_a_killed_worker_is_replaced_and_only_its_own_batch_is_lost(steady: Traffic, record: Record) -> None:
    name = min(names(pods()))
    with steady.load() as outcome:
        kill_process(name, "server", WORKER)
        time.sleep(15)
    record(f"a worker SIGKILLed: {outcome}")
    assert set(outcome.lost) <= {"503"} and sum(outcome.lost.values()) <= BATCH, outcome
    assert container_status(pod(name), "server")["restartCount"] == 0


def test_a_server_whose_java_is_killed_restarts_and_loses_only_what_its_pod_was_sent_meanwhile(
    steady: Traffic, record: Record
) -> None:
    name = min(names(pods()))
    with steady.load() as outcome:
        kill_process(name, "server", JAVA)
        until(lambda: container_status(pod(name), "server")["restartCount"] == 1, overview)
        until(lambda: len(ready_pods()) == 2, overview)
    ended = container_status(pod(name), "server")["lastState"]["terminated"]
    record(f"Java SIGKILLed, exit code {ended['exitCode']}: {outcome}")
    assert ended["exitCode"] == 1
    assert container_status(pod(name), "gateway")["restartCount"] == 0
    # Half of the requests go to that pod until it is out of the Service; its gateway answers them with 503.
    assert set(outcome.lost) <= {"503"}, outcome
    assert sum(outcome.lost.values()) <= UNREADY_S * RATE, outcome


def test_hostile_images_end_no_container_and_cost_other_clients_nothing(steady: Traffic, record: Record) -> None:
    """As many pixels as the limits allow, more than they allow, and the largest bodies, eight at a time."""
    largest_allowed, larger = bomb(6_000), bomb(8_000)
    bodies = [(largest_allowed, 1), (larger, 1), (b"\xff" * 1024, 16 << 10), (largest_allowed, 1)] * 6

    def send(body: tuple[bytes, int]) -> int:
        status: int = steady.send(body=body[0], repeat=body[1])["status"]
        return status

    with steady.load() as outcome, ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(send, bodies))
    counts = {status: statuses.count(status) for status in sorted(set(statuses))}
    record(f"hostile images, answered {counts}: {outcome}")
    assert max(statuses) < 500 and min(statuses) >= 200, counts
    assert not outcome.lost
    for one in pods():
        for name in ("server", "gateway"):
            status = container_status(one, name)
            assert status["lastState"].get("terminated", {}).get("reason") != "OOMKilled"


def test_a_server_out_of_memory_by_a_hostile_image_comes_back_by_itself(steady: Traffic, record: Record) -> None:
    """The limit is lowered in place below what the server planned with: within its own the images above end nothing."""
    name = min(names(pods()))
    in_namespace("patch", "pod", name, "--subresource=resize", f"--patch={json.dumps(memory_of_server(LITTLE_MEMORY))}")
    until(lambda: limit_in_force(name) == LITTLE_MEMORY, lambda: events(name), 60)
    image, statuses = bomb(6_000), list[int]()

    def send(_: int) -> int:
        status: int = steady.send(body=image)["status"]
        return status

    with steady.load() as outcome, ThreadPoolExecutor(8) as threads:
        deadline = time.monotonic() + OOM_TIMEOUT_S
        while max(statuses, default=0) < 500 and time.monotonic() < deadline:
            statuses += threads.map(send, range(16))
        # Whether the kernel ends one process or all of the container is the node's choice (cgroup v1, v2).
        until(lambda: len(ready_pods()) == 2, overview)
        time.sleep(15)
        after = [steady.send()["status"] for _ in range(20)]
    counts = {status: statuses.count(status) for status in sorted(set(statuses))}
    restarts = container_status(pod(name), "server")["restartCount"]
    record(f"hostile images, answered {counts}, in {LITTLE_MEMORY}: restarted {restarts} times; {outcome}")
    in_namespace("delete", "pod", name, "--timeout=180s")
    assert set(statuses) <= {200, 503} and 503 in statuses, counts
    assert set(after) == {200}
    assert set(outcome.lost) <= {"503"}, outcome
    assert sum(outcome.lost.values()) <= (UNREADY_S * RATE if restarts else BATCH * counts[503]), outcome


def test_a_drain_takes_one_pod_at_a_time_and_loses_nothing(steady: Traffic, node: str, record: Record) -> None:
    """On a single node the second eviction waits until the first pod's replacement runs: after the uncordon."""
    before = names(pods())
    drain = ["kubectl", "drain", node, f"--pod-selector={SELECTOR}", "--ignore-daemonsets", "--delete-emptydir-data"]
    try:
        with steady.load() as outcome:
            with subprocess.Popen([*drain, "--timeout=400s"], stderr=subprocess.PIPE, text=True) as draining:
                assert draining.stderr is not None
                refused = ""
                while _BUDGET not in refused and draining.poll() is None:
                    refused = draining.stderr.readline()
                if draining.poll() is None:
                    assert names(ready_pods()) <= before
                    assert len(ready_pods()) >= 1
                kubectl("uncordon", node)
                rest = draining.communicate(timeout=420)[1]
            until(lambda: len(ready_pods()) == 2 and not names(pods()) & before, overview)
    finally:
        kubectl("uncordon", node)
    assert draining.returncode == 0, rest
    record(f"a node drained, {'the budget honoured' if refused else 'with room for the replacements'}: {outcome}")
    assert _BUDGET in refused or len(names(pods())) == 2
    assert not outcome.lost


def memory_of_server(quantity: str) -> dict[str, object]:
    """Return a patch of a pod: the server's memory, asked for and allowed."""
    resources = {kind: {"memory": quantity} for kind in ("requests", "limits")}
    return {"spec": {"containers": [{"name": "server", "resources": resources}]}}


def limit_in_force(name: str) -> str:
    """Return the memory limit that the kubelet says the server has."""
    limit: str = container_status(pod(name), "server").get("resources", {}).get("limits", {}).get("memory", "")
    return limit


def bomb(side: int) -> bytes:
    """Return a PNG of one colour, ``side`` pixels wide and high: small as a file, large when decoded."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compressobj(9)
    row = b"\0" + b"\x40\x90\x30" * side
    data = b"".join([*(rows.compress(row) for _ in range(side)), rows.flush()])
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data) + chunk(b"IEND", b"")
