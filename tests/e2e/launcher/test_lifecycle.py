import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import psutil
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.conftest import E2E, PORTS, ROOT, START_TIMEOUT_S, VERSION, Service, free_ports, runs, start, stop

pytestmark = E2E

BACK_TIMEOUT_S = 400


def test_a_killed_worker_comes_back_and_answers(service: Service, photograph: bytes) -> None:
    expected = service.put(photograph).content
    before = {worker["pid"] for worker in service.workers()}
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    assert answer_of_the_next_worker(service, photograph) == expected
    assert not before & {worker["pid"] for worker in service.workers() if worker["status"] == "READY"}


def answer_of_the_next_worker(service: Service, photograph: bytes) -> bytes:
    """Ask until a worker answers; the front end may refuse, reset or wait meanwhile."""
    deadline = time.monotonic() + BACK_TIMEOUT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(requests.RequestException):
            answer = service.put(photograph)
            if answer.status_code == requests.codes.ok:
                return answer.content
        time.sleep(0.5)
    pytest.fail(f"no worker came back:\n{service.log.read_text()}")


def test_nothing_can_be_registered_over_the_network(service: Service) -> None:
    for path in ("models?url=http://127.0.0.1:1/x.mar", "workflows?url=http://127.0.0.1:1/x.war"):
        assert requests.post(service.url(path, "management_port"), timeout=30).status_code in (404, 405)
    assert requests.delete(service.url("models/flowers", "management_port"), timeout=30).status_code == 405


def test_only_this_machine_can_reach_the_ports(service: Service) -> None:
    parent = psutil.Process(service.process.pid)
    family = [parent, *parent.children(recursive=True)]
    sockets = [found for process in family for found in process.net_connections("inet")]
    open_to_clients = [
        found.laddr
        for found in sockets
        if found.status == psutil.CONN_LISTEN or (found.type == socket.SOCK_DGRAM and found.laddr)
    ]
    assert {address.port for address in open_to_clients} >= set(service.ports.values())
    assert {address.ip.removeprefix("::ffff:") for address in open_to_clients} == {"127.0.0.1"}


def test_sigterm_ends_the_service_and_all_that_it_started(model_store: Path, tmp_path: Path) -> None:
    litter = {name for name in ("logs", "key_file.json") if (ROOT / name).exists()}
    # At home, libraries like to leave what they report about their use.
    own = {"TMPDIR": str(tmp_path), "HOME": str(tmp_path), "TS_DEFAULT_WORKERS_PER_MODEL": "1"}
    own["VISIONSERVE_STATUS_HOST"] = "::1" if socket.has_dualstack_ipv6() else "127.0.0.1"
    service = start(model_store, tmp_path / "service.log", **own)
    with socket.create_connection((own["VISIONSERVE_STATUS_HOST"], service.ports["status_port"]), timeout=30) as status:
        status.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
        assert status.recv(100).startswith(b"HTTP/1.1 200 ")
    assert len(service.workers()) == 1
    family = psutil.Process(service.process.pid).children(recursive=True)
    assert family
    assert stop(service) == 0
    assert not list(filter(runs, family))
    assert [path.name for path in tmp_path.iterdir()] == ["service.log"]
    assert {name for name in ("logs", "key_file.json") if (ROOT / name).exists()} == litter


def test_the_log_holds_no_line_per_request(service: Service, photograph: bytes) -> None:
    before = service.log.stat().st_size
    for _ in range(5):
        service.put(photograph)
        service.put(b"no image")
    assert service.log.stat().st_size == before


@contextlib.contextmanager
def launched(model_store: Path, log: IO[Any], *before: str, **environment: str) -> Iterator[Service]:
    """Launch a service without waiting for anything; it and what it started are gone on leaving."""
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    options = [f"--{option.replace('_', '-')}={port}" for option, port in ports.items()]
    command = [*before, sys.executable, "-m", "launcher", "serve", f"--model-store={model_store}", *options]
    process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env={**os.environ, **environment})
    try:
        yield Service(process, ports, Path(str(log.name)))
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def status(service: Service, path: str) -> tuple[int, Any]:
    """Ask the status server; (0, None) while there is none."""
    try:
        answer = requests.get(service.url(path, "status_port"), timeout=30)
    except requests.RequestException:
        return 0, None
    return answer.status_code, answer.json()


def wait_for(what: str, service: Service, found: Any) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not found():
        assert service.process.poll() is None, f"it ended instead of: {what}"
        assert time.monotonic() < deadline, f"waited in vain for: {what}"
        time.sleep(0.2)


def test_it_is_ready_only_after_every_worker_has_answered(model_store: Path, tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log, launched(model_store, log) as service:
        seen: list[tuple[int, Any]] = []
        while not seen or seen[-1][0] != 200:
            assert service.process.poll() is None
            before, readiness = status(service, "models")[1], status(service, "readyz")
            if before is not None:
                seen.append((readiness[0], before["models"][0]["workers"]))
            time.sleep(0.02)
        codes = [code for code, _ in seen]
        assert codes == sorted(codes, reverse=True)
        assert codes[0] == 503
        ready = status(service, "models")[1]["models"][0]["workers"]
        assert ready["ready"] == ready["total"] == len(service.workers())
        assert {worker["pid"] for worker in service.workers()} == workers_of(service)


def workers_of(service: Service) -> set[int]:
    family = psutil.Process(service.process.pid).children(recursive=True)
    return {process.pid for process in family if name_of(process) == "ts-worker"}


def name_of(process: psutil.Process) -> str:
    try:
        name: str = process.name()
    except psutil.Error:  # it ended meanwhile
        name = ""
    return name


def test_a_killed_worker_costs_at_most_its_own_batch_and_is_back_in_seconds(
    model_store: Path, tmp_path: Path, photograph: bytes
) -> None:
    service = start(model_store, tmp_path / "service.log", TS_DEFAULT_WORKERS_PER_MODEL="2")
    try:
        victim = min(workers_of(service))
        fates: Counter[str] = Counter()
        with ThreadPoolExecutor(4) as senders:
            asked = [senders.submit(fate_of, service, photograph) for _ in range(60)]
            while sum(request.done() for request in asked) < 10:
                time.sleep(0.01)
            os.kill(victim, signal.SIGKILL)
            fates.update(request.result() for request in asked)
        assert fates["200"] >= 60 - 4, fates
        assert status(service, "readyz")[0] == 200
        # The death is seen at the watch's next look; until then the dead worker counts as ready.
        wait_for("a worker's death", service, lambda: restarts(service) == 1)
        wait_for("a new worker", service, lambda: status(service, "models")[1]["models"][0]["workers"]["ready"] == 2)
        assert victim not in workers_of(service)
        assert restarts(service) == 1
    finally:
        assert stop(service) == 0


def restarts(service: Service) -> float:
    text = requests.get(service.url("metrics", "status_port"), timeout=30).text
    return next(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "visionserve_worker_restarts_total"
    )


def fate_of(service: Service, photograph: bytes) -> str:
    try:
        return str(service.put(photograph).status_code)
    except requests.RequestException as error:
        return type(error).__name__


def test_when_java_is_killed_the_process_ends_promptly_with_a_failure(model_store: Path, tmp_path: Path) -> None:
    service = start(model_store, tmp_path / "service.log")
    family = psutil.Process(service.process.pid).children(recursive=True)
    java = next(process for process in family if process.name() == "java")
    java.kill()
    killed = time.monotonic()
    assert service.process.wait(timeout=60) == 1
    assert time.monotonic() - killed < 30
    deadline = time.monotonic() + 30
    while any(map(runs, family)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(runs, family))
    assert "TorchServe exited unexpectedly" in service.log.read_text()


def test_a_missing_model_is_one_line_and_an_exit(model_store: Path) -> None:
    done = serve_to_the_end(model_store, "--model=tulips")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        f"No archive in {model_store} that user {os.getuid()} can read holds tulips: build it with `make archive "
        "MODEL=tulips`, or name one that is there with --model: flowers."
    ]


def test_an_archive_for_a_gpu_is_refused_at_once_where_there_is_none(model_store: Path, tmp_path: Path) -> None:
    if shutil.which("nvidia-smi"):
        pytest.skip("this machine has nvidia-smi: run it where there is none")
    repack(model_store / "flowers.mar", tmp_path / "flowers.mar", "card.json", for_gpu)
    done = serve_to_the_end(tmp_path)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "flowers.mar was packaged for a GPU and nvidia-smi finds none here" in done.stderr


def test_a_model_that_no_worker_can_load_is_never_ready_and_ends_the_process(model_store: Path, tmp_path: Path) -> None:
    # A whole file, as far as can be seen from outside; its graph is empty.
    repack(model_store / "flowers.mar", tmp_path / "flowers.mar", "model.onnx", lambda _: b"\x3a\x00")
    with (tmp_path / "log").open("wb") as log, launched(tmp_path, log) as service:
        codes = set()
        while service.process.poll() is None:
            codes.add(status(service, "readyz")[0])
            time.sleep(0.05)
        assert service.process.returncode == 2
    assert codes <= {0, 503}
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[-1].startswith(f"flowers {VERSION} cannot be served here: ")
    assert "model.onnx" in lines[-1]
    assert len(lines) <= 20, "traces of the workers hide the reason"
    assert not any("Traceback" in line for line in lines)


def test_a_network_that_is_cut_off_is_one_line_and_an_exit(model_store: Path, tmp_path: Path) -> None:
    repack(model_store / "flowers.mar", tmp_path / "flowers.mar", "model.onnx", lambda data: data[: len(data) // 2])
    done = serve_to_the_end(tmp_path)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "model.onnx is truncated or corrupt" in done.stderr


def serve_to_the_end(model_store: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "launcher", "serve", f"--model-store={model_store}", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def for_gpu(card: bytes) -> bytes:
    return json.dumps({**json.loads(card), "device": "cuda"}).encode()


def repack(source: Path, target: Path, name: str, change: Any) -> None:
    """Copy an archive with one of its files changed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.namelist():
            new.writestr(entry, change(old.read(entry)) if entry == name else old.read(entry))


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """Mount a small disk in memory; skips where only the superuser may."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("a full disk needs a file system of its own: run the tests as root, where mounting is allowed")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(stream: IO[bytes]) -> None:
    with contextlib.suppress(OSError):
        while True:
            stream.write(bytes(1 << 16))
            stream.flush()


def test_a_full_disk_under_log_and_temporary_files_stops_nobody(
    model_store: Path, tmp_path: Path, photograph: bytes
) -> None:
    with (
        small_disk(tmp_path / "log", 1) as logs,
        small_disk(tmp_path / "scratch", 400) as scratch,
        (logs / "log").open("wb", buffering=0) as log,
    ):
        fill(log)
        with launched(model_store, log, TMPDIR=str(scratch)) as service:
            wait_for("readiness", service, lambda: status(service, "readyz")[0] == 200)
            with (scratch / "litter").open("wb") as litter:
                fill(litter)
                assert shutil.disk_usage(scratch).free == shutil.disk_usage(logs).free == 0
                for body, code in ((photograph, 200), (b"no image", 415)) * 5:
                    assert service.put(body).status_code == code
                os.kill(min(workers_of(service)), signal.SIGKILL)
                wait_for(
                    "the loss", service, lambda: status(service, "models")[1]["models"][0]["workers"]["ready"] == 1
                )
                wait_for(
                    "a new one", service, lambda: status(service, "models")[1]["models"][0]["workers"]["ready"] == 2
                )
                assert service.put(photograph).status_code == 200
                assert stop(service) == 0


def test_as_process_1_it_passes_signals_on_and_leaves_no_zombies(model_store: Path, tmp_path: Path) -> None:
    namespace = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if os.geteuid() != 0 or subprocess.run([*namespace, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("a process namespace is needed: run the tests as root, where unshare(1) is allowed")
    with (tmp_path / "log").open("wb") as log, launched(model_store, log, *namespace) as service:
        wait_for("readiness", service, lambda: status(service, "readyz")[0] == 200)
        (first,) = psutil.Process(service.process.pid).children()
        own = len(first.children())  # Java and the guard
        orphan = [*("nsenter", "--pid", "--mount", "--target", str(first.pid)), "sh", "-c", "sleep 1 & :"]
        subprocess.run(orphan, check=True)
        wait_for("an orphan", service, lambda: len(first.children()) == own + 1)
        wait_for("its end", service, lambda: len(first.children()) == own)
        family = first.children(recursive=True)
        first.send_signal(signal.SIGTERM)
        assert service.process.wait(timeout=60) == 0
        assert not list(filter(runs, family))
    assert "Stopped." in (tmp_path / "log").read_text()


def test_a_launcher_that_is_killed_while_it_starts_leaves_nothing_and_a_closed_terminal_stops_it(
    model_store: Path, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with (tmp_path / "log").open("wb") as log:
        with launched(model_store, log, TMPDIR=str(scratch)) as service:
            wait_for("workers", service, lambda: workers_of(service))
            family = psutil.Process(service.process.pid).children(recursive=True)
            service.process.kill()
            service.process.wait(timeout=20)
            _, alive = psutil.wait_procs(family, timeout=20)
            assert not [process for process in alive if runs(process)]
            deadline = time.monotonic() + 10
            while list(scratch.iterdir()) and time.monotonic() < deadline:
                time.sleep(0.1)
            assert not list(scratch.iterdir())
        with launched(model_store, log, TMPDIR=str(scratch)) as service:
            wait_for("workers", service, lambda: workers_of(service))
            family = psutil.Process(service.process.pid).children(recursive=True)
            service.process.send_signal(signal.SIGHUP)
            assert service.process.wait(timeout=60) == 0
            assert not [process for process in family if runs(process)]


@pytest.mark.parametrize("frozen", ["java", "workers"])
def test_a_service_that_hangs_is_unready_in_seconds_and_ready_again_when_it_goes_on(
    frozen: str, model_store: Path, tmp_path: Path, photograph: bytes
) -> None:
    service = start(model_store, tmp_path / "service.log")
    try:
        family = psutil.Process(service.process.pid).children(recursive=True)
        pids = workers_of(service) if frozen == "workers" else {p.pid for p in family if p.name() == "java"}
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        stopped = time.monotonic()
        try:
            while status(service, "readyz")[0] != 503:
                assert time.monotonic() - stopped < 30
                time.sleep(0.2)
            assert time.monotonic() - stopped > 5
            assert status(service, "livez")[0] == 200
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        wait_for("readiness", service, lambda: status(service, "readyz")[0] == 200)
        assert service.put(photograph).status_code == 200
    finally:
        assert stop(service) == 0
