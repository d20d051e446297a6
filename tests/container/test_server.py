"""A container of the server's image: its answers, its limits and its end."""

import json
import subprocess
import time
from pathlib import Path

import pytest

from tests.container.conftest import CONTAINER
from tests.container.engine import Container, attempt, docker

pytestmark = CONTAINER
WORKER = "model_service_worker"
JAVA = "java-runtime/bin/java"
# Sends forty requests, says so, then reads the answers: none of them is on its way when the container is stopped.
_SENDER = """
import http.client, sys
data = sys.stdin.buffer.read()
sent = [http.client.HTTPConnection("127.0.0.1", 8080, timeout=60) for _ in range(40)]
for connection in sent:
    connection.request("PUT", "/predictions/flowers", data, {"Content-Type": "application/octet-stream"})
print("sent", flush=True)
print([connection.getresponse().status for connection in sent].count(200), flush=True)
"""


def test_a_container_without_a_writable_root_becomes_healthy_and_answers(server: Container, photograph: bytes) -> None:
    status, answer = server.predict(photograph)
    assert status == 200
    assert len(answer["predictions"]) == 5
    assert server.ask("GET", "/readyz", 8083)[0] == 200


def test_workers_are_spoken_to_over_a_socket_of_the_file_system(server: Container) -> None:
    assert all("--sock-type unix" in line for _, _, line in server.processes() if WORKER in line)


def test_java_starts_with_the_class_data_of_the_build(server: Container) -> None:
    java = next(pid for pid, _, line in server.processes() if JAVA in line)
    assert "/classes.jsa" in docker("exec", server.name, "cat", f"/proc/{java}/maps")


def test_any_other_user_may_run_it(image: str, photograph: bytes) -> None:
    with Container(image, ("--user=54321:54321", "--cpus=1")) as running:
        assert running.ready().predict(photograph)[0] == 200


@pytest.mark.parametrize("cores", [1, 2])
def test_there_is_a_worker_per_core_of_the_quota(image: str, cores: int) -> None:
    with Container(image, (f"--cpus={cores}",)) as running:
        _, listed = running.ready().ask("GET", "/models", 8083)
    assert listed["models"][0]["workers"] == {"ready": cores, "total": cores}


def test_one_core_and_a_gibibyte_are_enough(image: str, photograph: bytes) -> None:
    with Container(image, ("--cpus=1", "--memory=1g", "--memory-swap=1g")) as running:
        running.ready()
        assert [running.predict(photograph)[0] for _ in range(5)] == [200] * 5
        assert not running.state()["State"]["OOMKilled"]


def test_a_killed_worker_is_replaced_and_leaves_no_zombie(image: str, photograph: bytes) -> None:
    with Container(image, ("--cpus=2",)) as running:
        running.ready().kill(WORKER)
        deadline = time.monotonic() + 120
        while sum(WORKER in line for _, _, line in running.processes()) < 2 and time.monotonic() < deadline:
            time.sleep(0.5)
        assert running.predict(photograph)[0] == 200
        assert [line for _, state, line in running.processes() if state == "zombie"] == []


def test_children_that_lost_their_parent_are_reaped(server: Container) -> None:
    orphan = "import os, time\nif os.fork() == 0:\n    time.sleep(1)\n    os._exit(0)\nos._exit(0)"
    docker("exec", server.name, "python", "-c", orphan)
    deadline = time.monotonic() + 30
    time.sleep(1.5)
    while (states := [state for _, state, _ in server.processes()]).count("zombie") and time.monotonic() < deadline:
        time.sleep(0.5)
    assert "zombie" not in states


def test_a_stopped_container_answers_what_it_has_accepted_and_ends_with_0(image: str, photograph: bytes) -> None:
    with Container(image, ("--cpus=1",)) as running:
        running.ready()
        command = ["docker", "exec", "--interactive", running.name, "python", "-c", _SENDER]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as sender:
            assert sender.stdin is not None and sender.stdout is not None
            sender.stdin.write(photograph)
            sender.stdin.close()
            assert sender.stdout.readline() == b"sent\n"
            started = time.monotonic()
            docker("stop", "--time=60", running.name)
            assert sender.stdout.readline() == b"40\n"
        assert time.monotonic() - started < 60
        assert running.ended() == 0


def test_a_container_whose_java_dies_ends_and_its_restart_serves_again(image: str, photograph: bytes) -> None:
    with Container(image, ("--cpus=1", "--restart=on-failure:3")) as running:
        running.ready().kill(JAVA)
        deadline = time.monotonic() + 60
        while running.state()["RestartCount"] == 0 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert running.state()["RestartCount"] >= 1, running.log()
        assert running.ready().predict(photograph)[0] == 200


def test_a_mounted_folder_of_archives_takes_the_place_of_the_image_s(
    image: str, server: Container, tmp_path: Path, photograph: bytes
) -> None:
    docker("cp", f"{server.name}:/models/flowers.mar", str(tmp_path))
    readable(tmp_path)
    with Container(image, ("--cpus=1", f"--volume={tmp_path}:/models:ro")) as running:
        assert running.ready().predict(photograph)[0] == 200


def test_an_empty_folder_of_archives_is_one_sentence_and_exit_code_2(image: str, tmp_path: Path) -> None:
    readable(tmp_path)
    with Container(image, (f"--volume={tmp_path}:/models:ro",)) as running:
        assert running.ended() == 2
        assert len(running.log().strip().splitlines()) == 1, running.log()


def test_a_gpu_is_not_pretended(server: Container) -> None:
    _, described = server.ask("GET", "/models/flowers", 8083)
    assert described["card"]["device"] == "cpu"
    assert json.dumps(described)
    assert attempt("exec", server.name, "nvidia-smi").returncode != 0


def readable(folder: Path) -> None:
    """Let the container's user see a folder of pytest's, which are for their owner only."""
    folder.chmod(0o755)
