from pathlib import Path

import pytest

from loadtests import soak
from loadtests.__main__ import main
from loadtests.benchmark import client
from loadtests.benchmark.client import Window
from loadtests.benchmark.server import ServerError
from loadtests.soak import Sample


def samples_of(*memory_mb: float, faults: int = 0) -> list[Sample]:
    return [Sample(1000 * (n + 1), mb, 300.0, 90.0, faults) for n, mb in enumerate(memory_mb)]


def test_growth_compares_the_last_quarter_with_the_second() -> None:
    assert soak.growth(samples_of(500, 900, 1000, 1000, 1000, 1000, 1100, 1100)) == pytest.approx(0.1)
    assert soak.growth(samples_of(500, 1000, 1000, 1000)) == 0
    assert soak.growth(samples_of(1, 2, 3)) == 0


def test_the_table_has_some_ten_rows_with_the_first_and_the_last() -> None:
    rows = soak.table(samples_of(*range(1000, 1100))).splitlines()[2:]
    assert len(rows) == 10
    assert rows[0] == "| 1,000 | 1,000 | 300 | 90 | 0 |"
    assert rows[-1].startswith("| 100,000 | 1,099 |")
    assert len(soak.table(samples_of(1000)).splitlines()) == 3


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (samples_of(1000, 1000, 1000, 1000), 0),
        (samples_of(1000, 1000, 1100, 1100), 1),
        (samples_of(1000, 1000, 1000, 1000, faults=1), 1),
    ],
)
def test_it_fails_over_a_leak_and_over_faults(
    found: list[Sample], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "x.mar"
    archive.touch()
    monkeypatch.setattr(soak, "measure", lambda *_: found)
    assert main(["soak", f"--archive={archive}"]) == code
    assert "Memory of the last quarter" in capsys.readouterr().out


def test_too_few_samples_prove_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.mar").touch()
    monkeypatch.setattr(soak, "measure", lambda *_: samples_of(1000, 2000, 3000))
    assert main(["soak", f"--archive={tmp_path / 'x.mar'}"]) == 1  # it was 0, for any growth
    assert "3 samples cannot show whether memory grows" in capsys.readouterr().out


def test_a_service_that_does_not_start_or_an_archive_that_is_missing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["soak", f"--archive={tmp_path / 'none.mar'}"]) == 2
    assert "`make archive` builds it" in capsys.readouterr().err

    (tmp_path / "x.mar").touch()
    assert main(["soak", f"--archive={tmp_path / 'x.mar'}", "--requests=0"]) == 2
    assert "must be positive" in capsys.readouterr().err

    def broken(*_: object) -> list[Sample]:
        raise ServerError("no answer")

    monkeypatch.setattr(soak, "measure", broken)
    assert main(["soak", f"--archive={tmp_path / 'x.mar'}"]) == 3
    assert "no answer" in capsys.readouterr().err


def test_a_window_that_is_too_short_for_any_answer_is_made_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    windows: list[float] = []

    class Busy:
        target = cpu_s = None

        def memory_mb(self) -> float:
            return 900.0

        def log_tail(self) -> str:
            return "the log"

    def measured(_target: object, _workload: object, _n: int, _warm: float, seconds: float, _cpu: object) -> Window:
        windows.append(seconds)
        return Window(seconds, [1000.0] * 40 if seconds >= 2 else [])

    monkeypatch.setattr(client, "measure", measured)
    samples = soak._samples(Busy(), None, 60, 0.5, lambda _: None)  # type: ignore[arg-type]
    assert windows == [0.5, 1.0, 2.0, 2.0]
    assert [sample.requests for sample in samples] == [40, 80]

    monkeypatch.setattr(client, "measure", lambda *_: Window(1.0))
    with pytest.raises(ServerError, match="the log"):
        soak._samples(Busy(), None, 60, 0.5, lambda _: None)  # type: ignore[arg-type]
