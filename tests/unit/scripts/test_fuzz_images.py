import json
from pathlib import Path

import pytest

from scripts import fuzz_images


@pytest.mark.parametrize("kind", fuzz_images._KINDS)
def test_every_seed_is_an_image(kind: str) -> None:
    for file in fuzz_images.seeds(kind):
        assert fuzz_images.outcome(file, 8).startswith("image")


def test_a_run_reports_what_it_tried(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz_images.main(["--cpu-seconds", "0.5", "--kinds", "profile", "--failures", str(tmp_path)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["inputs"]["profile"] > 10 and report["cpu_s"] >= 0.5 and not report["failures"]
    assert json.loads((tmp_path / "report.json").read_text()) == report


def test_a_file_that_takes_too_long_is_kept(tmp_path: Path) -> None:
    arguments = ["--cpu-seconds", "0.2", "--kinds", "profile", "--slow", "0", "--failures", str(tmp_path)]
    assert fuzz_images.main(arguments) == 1
    assert list(tmp_path.glob("failure-*"))
