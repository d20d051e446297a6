import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loadtests.__main__ import main
from loadtests.gpu import command, service
from loadtests.gpu.command import Part
from loadtests.gpu.job import Job, Results, run_part
from loadtests.results.stats import RequestStats
from loadtests.results.validation import Outcome


def job(folder: Path, seconds: float = 60.0) -> Job:
    return Job(str(folder), None, None, str(folder), True, "cpu", True, seconds, str(folder / "part.json"))


def test_rows_are_on_disk_as_soon_as_they_are_measured(tmp_path: Path) -> None:
    results = Results(job(tmp_path))
    results.add("batch 8", "35 images/s", images_per_s=35.0)
    content = json.loads((tmp_path / "part.json").read_text())
    assert content["rows"] == [{"what": "batch 8", "value": "35 images/s", "images_per_s": 35.0}]
    assert not content["complete"]


def test_what_there_is_no_time_for_is_said_to_be_left_out(tmp_path: Path) -> None:
    results = Results(job(tmp_path, seconds=5))
    assert results.has_time(1, "this")
    assert not results.has_time(10, "256 connections")
    assert json.loads((tmp_path / "part.json").read_text())["left_out"] == ["256 connections: no time left"]


def test_a_part_that_takes_too_long_is_ended_with_its_processes_and_keeps_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = {name: Part("tests.unit.loadtests.test_gpu", 1, name.title()) for name in ("endless", "wrong", "good")}
    monkeypatch.setattr(command, "PARTS", parts)
    for name, value in (("_LEAST_S", 1.0), ("_TOO_SHORT_S", 1.0), ("_GRACE_S", 0), ("_RESERVE_S", 0)):
        monkeypatch.setattr(command, name, value)
    bundle = tmp_path / "bundle"
    arguments = ["gpu", "--device=cpu", f"--bundle={bundle}", f"--images={tmp_path}", f"--output={tmp_path / 'out'}"]
    assert main([*arguments, "--only=endless,wrong,good", "--minutes=0.5"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "| Endless | before | measured |" in lines
    assert "| Good | all | measured |" in lines
    assert any(line.startswith("- Endless: ended after") for line in lines)
    assert any(line.startswith("- Wrong: failed: RuntimeError: no such device") for line in lines)
    assert (tmp_path / "out" / command.MARKDOWN).read_text().splitlines() == lines[:-1]
    pid = json.loads((tmp_path / "out" / "endless.json").read_text())["rows"][0]["pid"]
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()


def test_time_is_shared_by_weight_and_what_is_unused_is_shared_again() -> None:
    names = list(command.PARTS)
    assert command._share(names[-1:], 200) == 200
    assert command._share(["service", "training"], 275) == pytest.approx(275 * 3.5 / 5.5)
    assert command._share(names, 300) == 60
    assert command._share(names, 2) == 2


def test_parts_without_any_time_left_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--device=cpu", "--only=engine,training", "--minutes=0.1", f"--images={tmp_path}"]
    assert main(["gpu", f"--output={tmp_path / 'out'}", *options]) == 1
    assert "- Training: no time left of 0.1 minutes" in capsys.readouterr().out


def test_lost_requests_are_counted_with_their_reasons() -> None:
    stats = RequestStats()
    for second in range(10):
        stats.record(100.0 + second, Outcome("ok"), 5.0, 5.0)
    assert service.losses(stats, 103.5) == (0, "0 of 10")
    stats.record(104.0, Outcome("failed", "status 503"), 5.0, 5.0)
    stats.record(105.0, Outcome("wrong", "a: rose instead of tulip"), 5.0, 5.0)
    lost, text = service.losses(stats, 103.5)
    assert lost == 2
    assert text.startswith("2 of 12: 1 x status 503, 1 x a: rose instead of tulip; the last was due at most 2.5 s")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only=engine,magic"], "unknown parts: magic"),
        (["--minutes=0"], "--minutes must be positive"),
        (["--archive=missing.mar", "--device=cpu"], "missing.mar is missing"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gpu", f"--output={tmp_path}", f"--images={tmp_path}", *options]) == 2
    assert message in capsys.readouterr().err


def _endless(_job: Job, results: Results) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    results.add("before", "measured", pid=child.pid)
    time.sleep(600)


def _wrong(_job: Job, _results: Results) -> None:
    raise RuntimeError("no such device")


def _good(_job: Job, results: Results) -> None:
    results.add("all", "measured")


if __name__ == "__main__":
    run_part({"endless": _endless, "wrong": _wrong, "good": _good})
