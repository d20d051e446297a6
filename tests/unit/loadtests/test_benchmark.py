import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from loadtests.__main__ import main
from loadtests.benchmark import rounds, server, table
from loadtests.benchmark.rounds import CEILINGS, Measurement, MeasurementLog, Plan
from loadtests.benchmark.server import Launch, ServerError
from loadtests.benchmark.services import Service
from loadtests.load.images import EncodedImage, encode_jpeg, synthetic_image

ROOT = Path(__file__).resolve().parents[3]
IMAGES = [EncodedImage("a.jpg", encode_jpeg(synthetic_image(64, 48, 0)))]
PLAN = Plan(rounds=2, seconds=0.3, warm_up_s=0.05, connections=(1, 2), with_invalid=("fake",))
# A server with a process of its own below it, as TorchServe has workers.
PROGRAM = """
import subprocess, sys, time
sys.path.insert(0, sys.argv[2])
from tests.unit.loadtests import fake_service
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("child", child.pid, flush=True)
handler = type("Handler", (fake_service._Handler,), {"behaviour": fake_service.Behaviour()})
fake_service._Server(("127.0.0.1", int(sys.argv[1])), handler).serve_forever()
"""
FACTS: dict[str, Any] = {
    "date": "2026-01-02 03:04 UTC", "processor": "a processor", "usable_cores": 2, "memory_gb": 8.0, "python": "3.11",
    "versions": {"torch": "2"}, "revision": "abc", "load_before": 0.1,
}  # fmt: skip


def _launch() -> Launch:
    port = server.free_port()
    return Launch((sys.executable, "-c", PROGRAM, str(port), str(ROOT)), {}, ROOT, f"http://127.0.0.1:{port}/inference")


def _broken_launch() -> Launch:
    return Launch((sys.executable, "-c", "raise SystemExit('no such model')"), {}, ROOT, "http://127.0.0.1:9/x")


def _window(rate: float) -> dict[str, float]:
    return {
        "images_per_s": rate,
        "p50_ms": 3.0,
        "p99_ms": 9.0,
        "cpu_s_per_1000": 7.0,
        "client_cpu_share": 0.1,
        "others_cpu_share": 0.0,
        "faults": 0,
    }


def _measured(round_: int, subject: str, rate: float) -> Measurement:
    windows = {"1": _window(rate / 4), "8": _window(rate / 2), "32": _window(rate)}
    return {"round": round_, "subject": subject, "windows": windows, "memory_mb": 900.0, "first_answer_s": 5.0}


def _ceilings(round_: int, rate: float) -> Measurement:
    one = {"images_per_s": rate, "p50_ms": 2.0, "cpu_s_per_1000": 6.0}
    found = dict.fromkeys(("decode", "engine", "decode + engine", "one at a time"), one)
    return {"round": round_, "subject": CEILINGS, "ceilings": {**found, "12 megapixels": {"ratio": 4.0}}}


def test_a_server_is_weighed_with_its_processes_and_leaves_none_behind(tmp_path: Path) -> None:
    with server.running(_launch(), tmp_path / "log.txt") as running:
        seconds = running.first_answer(IMAGES[0].body)
        processes = running.processes()
        assert seconds > 0 and running.cpu_s() > 0 and running.memory_mb() > 5
        assert len(processes) == 2
    assert psutil.wait_procs(processes, timeout=5)[1] == []


def test_a_server_that_ends_is_reported_with_its_last_words(tmp_path: Path) -> None:
    with (
        server.running(_broken_launch(), tmp_path / "log.txt") as running,
        pytest.raises(ServerError, match="no such model"),
    ):
        running.first_answer(b"")


def test_rounds_are_interleaved_kept_and_taken_up_again(tmp_path: Path) -> None:
    services = [Service("fake", _launch), Service("broken", _broken_launch)]
    said: list[str] = []
    rounds.run(PLAN, services, lambda: {"ceilings": {}}, IMAGES, MeasurementLog(tmp_path), said.append)
    log = MeasurementLog(tmp_path)
    order = [(entry["round"], entry["subject"]) for entry in log.measurements]
    assert order == [(n, name) for n in (1, 2) for name in (CEILINGS, "fake", "broken")]
    assert "no such model" in log.measurements[2]["error"]
    fake = log.measurements[1]
    assert fake["windows"]["2"]["images_per_s"] > 0 and fake["windows"]["2"]["faults"] == 0
    assert fake["with_invalid"]["faults"] == 0
    assert any("FAILED" in line for line in said)
    (tmp_path / rounds.FILE_NAME).write_text("\n".join(json.dumps(entry) for entry in log.measurements[:5]) + '\n{"ro')
    again = MeasurementLog(tmp_path)
    rounds.run(PLAN, services[1:], lambda: {"ceilings": {}}, IMAGES, again, said.append)
    assert len(again.measurements) == 6


def test_the_table_shows_medians_spread_and_ratios_paired_by_round() -> None:
    found = [_ceilings(n, 320) for n in (1, 2, 3)]
    # Each round twice as fast as the stock one, whatever mood the machine was in.
    for round_, rate in ((1, 300.0), (2, 200.0), (3, 310.0)):
        found += [_measured(round_, "visionserve", rate), _measured(round_, "stock", rate / 2)]
    text = table.markdown(found, FACTS, "24 images")
    assert "| **visionserve** | 300 (200-310) | 150 (100-155) |" in text
    assert "| stock | 2.00 (2.00-2.00) | 2.00 (2.00-2.00) |" in text
    assert "in process | 0.94 (0.62-0.97) |" in text
    assert "One request at a time: 1.0 (1.0-1.0) ms above" in text
    assert "Do not quote" not in text


def test_faults_failures_and_other_processes_are_said_in_the_table() -> None:
    disturbed = _measured(1, "visionserve", 100.0)
    disturbed["windows"]["8"]["faults"] = 3
    disturbed["windows"]["1"]["others_cpu_share"] = 0.6
    failed: Measurement = {"round": 1, "subject": "stock", "error": "it ended with code 1:\nmore"}
    text = table.markdown([disturbed, failed], FACTS, "24 images")
    assert "Round 1: visionserve gave 3 requests no correct answer." in text
    assert "Round 1: stock failed: it ended with code 1:" in text
    assert "Do not quote: other processes used more than 15% of a core in 1 of 3 windows (at most 60%)" in text


def test_a_missing_archive_and_an_unknown_peer_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--bundle", str(tmp_path / "none"), "--output", str(tmp_path)]
    assert main(["benchmark", *arguments]) == 2
    assert "make archive" in capsys.readouterr().err


def test_measurements_are_not_mixed_with_those_of_another_benchmark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    MeasurementLog(tmp_path).add({"round": 1, "subject": "visionserve"})
    assert main(["benchmark", "--output", str(tmp_path)]) == 2
    assert "--resume" in capsys.readouterr().err


def test_a_free_port_is_free() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", server.free_port()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: signal.Signals(number).name)
def test_an_interrupted_benchmark_leaves_no_server_behind(number: int, tmp_path: Path) -> None:
    script = (
        "import signal, sys; sys.path.insert(0, sys.argv[1])\n"
        "signal.signal(signal.SIGTERM, signal.default_int_handler)\n"
        "from pathlib import Path\n"
        "from loadtests.benchmark import server\n"
        "from tests.unit.loadtests.test_benchmark import IMAGES, _launch\n"
        "with server.running(_launch(), Path(sys.argv[2])) as running:\n"
        "    running.first_answer(IMAGES[0].body)\n"
        "    print(*(process.pid for process in running.processes()), flush=True)\n"
        "    import time; time.sleep(600)\n"
    )
    command = [sys.executable, "-c", script, str(ROOT), str(tmp_path / "log.txt")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as harness:
        assert harness.stdout is not None
        pids = [int(pid) for pid in harness.stdout.readline().split()]
        harness.send_signal(number)
        assert harness.wait(60) != 0
    deadline = time.monotonic() + 10
    while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(pids) == 2
    assert not any(psutil.pid_exists(pid) for pid in pids)
