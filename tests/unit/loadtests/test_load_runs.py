import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.__main__ import main
from loadtests.benchmark import client
from loadtests.load.http_client import Target
from loadtests.load.images import EncodedImage, encode_jpeg, synthetic_image
from loadtests.load.openloop import Limits, OpenLoop
from loadtests.load.workload import Workload
from loadtests.results.run_record import RunRecord
from loadtests.results.validation import CalibrationError, calibrate
from tests.unit.loadtests.fake_service import Behaviour, running

IMAGES = [EncodedImage(f"{seed}.jpg", encode_jpeg(synthetic_image(64, 48, seed))) for seed in range(3)]
# Limits that a starved machine still meets: these tests are about counting, not about speed.
PATIENT = ["--slo-p99-ms", "20000", "--sizes", "64x48", "--timeout-s", "30"]


def _run(url: str, folder: Path, *more: str) -> tuple[int, RunRecord]:
    code = main(["run", "--url", url, "--output", str(folder), *PATIENT, *more])
    return code, RunRecord.load(folder)


def _outcomes(record: RunRecord) -> dict[str, int]:
    total: dict[str, int] = {}
    for interval in record.stats.seconds.values():
        for kind, count in interval.outcomes.items():
            total[kind] = total.get(kind, 0) + count
    return total


def test_an_open_loop_meets_its_targets_counts_refusals_apart_and_reports(tmp_path: Path) -> None:
    with running(Behaviour()) as url:
        code, record = _run(url, tmp_path, "--rate", "40", "--seconds", "3", "--invalid", "0.2", "--arrivals", "even")
    outcomes = _outcomes(record)
    assert code == 0
    assert sum(outcomes.values()) == 120
    assert set(outcomes) == {"ok", "rejected"}
    assert 5 < outcomes["rejected"] < 50
    assert (tmp_path / "latency.png").read_bytes().startswith(b"\x89PNG")
    text, page = (tmp_path / "report.md").read_text(), (tmp_path / "report.html").read_text()
    assert "Targets met" in text and "| constant | 40 |" in text and "| inference |" in text
    assert "data:image/png;base64," in page and "Targets met" in page


def test_an_answer_with_another_label_than_before_the_load_misses_the_targets(tmp_path: Path) -> None:
    behaviour = Behaviour(delay_s=0.0)
    spoil = threading.Timer(1.0, lambda: setattr(behaviour, "wrong", True))
    with running(behaviour) as url:
        spoil.start()
        code, record = _run(url, tmp_path, "--rate", "20", "--seconds", "2")
        spoil.join()
    assert code == 1
    assert _outcomes(record)["wrong"] > 0
    assert "another instead of label" in (tmp_path / "report.md").read_text()


def test_steps_end_at_the_first_level_that_misses(tmp_path: Path) -> None:
    with running(Behaviour(delay_s=0.05)) as url:
        code = main([
            *["run", "--url", url, "--output", str(tmp_path), "--sizes", "64x48", "--slo-p99-ms", "1"],
            *["--shape", "steps", "--from", "5", "--to", "50", "--by", "5", "--seconds", "1", "--arrivals", "even"],
        ])  # fmt: skip
    assert code == 1
    assert len(RunRecord.load(tmp_path).starts_s) == 1
    assert "No level met both" in (tmp_path / "report.md").read_text()


def test_locusts_users_are_counted_and_judged_alike(tmp_path: Path) -> None:
    with running(Behaviour()) as url:
        code, record = _run(url, tmp_path, "--loop", "closed", "--rate", "2", "--seconds", "2", "--invalid", "0.2")
    outcomes = _outcomes(record)
    assert code == 0
    assert set(outcomes) <= {"ok", "rejected"} and outcomes["ok"] > 0
    assert sum(record.stats.cpu_s["locust"].values()) > 0
    assert (tmp_path / "locust.html").is_file()


def test_a_service_that_answers_nothing_is_not_measured(tmp_path: Path) -> None:
    with running(Behaviour(status=503)) as url:
        assert main(["run", "--url", url, "--output", str(tmp_path), "--sizes", "64x48"]) == 3
    assert main(["run", "--url", url, "--output", str(tmp_path), "--sizes", "64x48"]) == 3


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["--url", "http://192.0.2.7/x"], id="another machine"),
        pytest.param(["--seconds", "1000000"], id="without an end"),
        pytest.param(["--sizes", "large"], id="no such size"),
        pytest.param(["--header", "nonsense"], id="no such header"),
        pytest.param(["--shape", "steps", "--from", "9", "--to", "3"], id="steps downwards"),
    ],
)
def test_a_wrong_command_line_is_told_from_a_missed_target(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--output", str(tmp_path), *arguments]) == 2
    assert capsys.readouterr().err.strip()


def test_a_report_is_made_anew_from_the_record(tmp_path: Path) -> None:
    with running(Behaviour()) as url:
        _run(url, tmp_path, "--rate", "10", "--seconds", "1")
    before = (tmp_path / "report.md").read_text()
    (tmp_path / "report.md").unlink()
    assert main(["report", str(tmp_path)]) == 0
    assert (tmp_path / "report.md").read_text() == before
    assert main(["report", str(tmp_path / "nowhere")]) == 2


def test_latency_runs_from_when_a_request_was_due() -> None:
    with running(Behaviour(delay_s=0.2)) as url:
        target = Target.parse(url)
        loop = OpenLoop(target, Workload(IMAGES), Limits(timeout_s=30, connections=1))
        loop.run([0.0, 0.01, 0.02])
    total = loop.stats.between(0, 1e12)
    # Over one connection the third waits for the two before it; it was due long before it could be sent.
    assert total.latency.longest_ms > 550
    assert total.latency.longest_ms > total.service.longest_ms + 300
    assert total.outcomes["ok"] == 3


def test_an_open_loop_does_not_wait_for_answers_before_it_sends() -> None:
    behaviour = Behaviour(delay_s=1.0)
    with running(behaviour) as url:
        loop = OpenLoop(Target.parse(url), Workload(IMAGES))
        begun = time.monotonic()
        loop.run([0.0] * 20)
        assert time.monotonic() - begun < 10
    assert loop.stats.between(0, 1e12).outcomes["ok"] == 20


def test_what_has_no_answer_when_a_run_is_interrupted_is_counted() -> None:
    """It was left out: of a service that hangs only its fast answers remained."""

    def due_times() -> Iterator[float]:
        yield from [0.0, 0.0, 0.0]
        yield 0.5
        raise KeyboardInterrupt

    with running(Behaviour(delay_s=5)) as url:
        loop = OpenLoop(Target.parse(url), Workload(IMAGES), Limits(connections=2))
        with pytest.raises(KeyboardInterrupt):
            loop.run(due_times())
    total = loop.stats.between(0, 1e12)
    assert dict(total.outcomes) == {"unanswered": 4}
    assert dict(total.reasons) == {"no answer yet when the run was interrupted": 4}


def test_a_request_without_an_answer_in_time_is_a_failure_and_no_hang() -> None:
    with running(Behaviour(delay_s=1.0)) as url:
        loop = OpenLoop(Target.parse(url), Workload(IMAGES), Limits(timeout_s=0.2))
        loop.run([0.0])
    assert dict(loop.stats.between(0, 1e12).reasons) == {"no response within 0.2 s": 1}


def test_nobody_at_the_address_is_a_failure_of_every_request() -> None:
    with running(Behaviour()) as url:
        pass
    loop = OpenLoop(Target.parse(url), Workload(IMAGES))
    loop.run([0.0, 0.01])
    assert dict(loop.stats.between(0, 1e12).reasons) == {"no connection (ConnectionRefusedError)": 2}


def test_calibration_learns_the_labels_and_how_many_are_right() -> None:
    with running(Behaviour()) as url:
        labels = calibrate(Target.parse(url), IMAGES).labels
        known = [EncodedImage("0.jpg", IMAGES[0].body, label=labels["0.jpg"])]
        known.append(EncodedImage("1.jpg", IMAGES[1].body, label="nonsense"))
        assert calibrate(Target.parse(url), known).accuracy == 0.5
    assert all(label.startswith("label ") for label in labels.values())


def test_a_photograph_that_is_refused_stops_the_calibration() -> None:
    with running(Behaviour()) as url, pytest.raises(CalibrationError, match=r"wrong\.jpg got status 400"):
        calibrate(Target.parse(url), [EncodedImage("wrong.jpg", b"\xff\xd8 no more")])


def test_the_benchmarks_client_counts_answers_refusals_and_faults() -> None:
    behaviour = Behaviour()
    with running(behaviour) as url:
        target = Target.parse(url)
        labels = dict(calibrate(target, IMAGES).labels)
        window = client.measure(target, Workload(IMAGES, labels, 0.2), 2, 0.1, 0.8, lambda: 0.0)
        behaviour.wrong = True
        wrong = client.measure(target, Workload(IMAGES, labels), 2, 0.1, 0.5, lambda: 0.0)
    assert window.latencies_ms and window.rejected and not window.faults
    assert window.summary()["images_per_s"] == pytest.approx(len(window.latencies_ms) / window.seconds)
    assert wrong.faults and not wrong.latencies_ms
    assert json.dumps(wrong.summary()["cpu_s_per_1000"]) == "NaN"
