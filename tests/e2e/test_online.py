"""Live accuracy against a real service: the answers that were evaluated, whatever happens on the way."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from monitoring.online import prediction_log
from tests.e2e.conftest import BUNDLE, E2E, ROOT, VERSION, Service, free_ports

pytestmark = E2E
LABELS = ("rose", "sunflower", "water lily")


@pytest.fixture(scope="module")
def labelled(photographs: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn photographs under labels that they need not show, one that is broken and one that cannot be read."""
    root = tmp_path_factory.mktemp("labelled")
    for number in range(60):
        folder = root / LABELS[number % 3]
        folder.mkdir(exist_ok=True)
        (folder / f"{number:03d}.jpg").write_bytes(photographs[number % len(photographs)])
    (root / "rose" / "broken.jpg").write_bytes(b"no image at all")
    (root / "rose" / "gone.jpg").symlink_to(root / "nothing.jpg")
    return root


def command(images: Path, url: str, folder: Path, *options: str) -> list[str]:
    places = [f"--log={folder / 'log.jsonl'}", f"--report={folder / 'report'}", f"--textfile={folder / 'live.prom'}"]
    return [sys.executable, "-m", "monitoring.online", f"--images={images}", f"--url={url}", *places, *options]


def finish(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)


def test_the_service_answers_as_the_bundle_does_in_this_process(
    service: Service, labelled: Path, tmp_path: Path
) -> None:
    done = finish(command(labelled, service.url(""), tmp_path, f"--bundle={BUNDLE}", "--compare"))
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert found["answered"] == found["agreement"]["photographs"] == 60
    assert found["agreement"]["same_label"] == found["agreement"]["same_probability"] == 60
    assert found["refused"] == {"unsupported_image": 1}
    assert found["unreadable"] == 1
    assert found["models"] == [f"flowers {VERSION}"]
    assert set(found["timings_s"]) == {"decode", "inference", "total"}
    assert "rose/gone.jpg: unreadable" in done.stderr
    assert f'visionserve_live_agreement{{models="flowers {VERSION}"}} 1.0' in (tmp_path / "live.prom").read_text()


def test_ctrl_c_loses_nothing_and_the_same_command_goes_on(service: Service, labelled: Path, tmp_path: Path) -> None:
    arguments, log = command(labelled, service.url(""), tmp_path, "--concurrency=1"), tmp_path / "log.jsonl"
    running = subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_bytes().count(b"\n") > 3):
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    done = len(prediction_log.read(log).photographs)
    assert running.returncode == 130, said
    assert said.startswith("Interrupted; ")
    assert 2 < done < 62
    with log.open("ab") as file:
        file.write(b'{"event":"photograph","run":"2026-')  # a kill would leave this
    again = finish(arguments)
    assert again.returncode == 0, again.stderr
    assert f"{done} of 62 are done" in again.stderr
    entries = prediction_log.read(log).photographs
    assert len(entries) == len({entry.photograph for entry in entries}) == 62


def test_without_a_service_it_says_so_in_one_sentence(labelled: Path, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    done = finish(command(labelled, f"http://127.0.0.1:{port}", tmp_path))
    assert done.returncode == 3
    assert f"No visionserve service answers at http://127.0.0.1:{port}" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif("VISIONSERVE_DATA" not in os.environ, reason="set VISIONSERVE_DATA to a folder of photographs")
def test_on_test_photographs_it_finds_what_the_card_promises(service: Service, tmp_path: Path) -> None:
    root = Path(os.environ["VISIONSERVE_DATA"]) / "flowers-102"
    options = [f"--root={root}", f"--bundle={BUNDLE}", "--limit=150"]
    done = finish(command(BUNDLE / "manifest.csv", service.url(""), tmp_path, *options))
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert found["offline"]["intervals_overlap"]
    assert not found["offline"]["below"]
    checked = [sys.executable, "-m", "monitoring.drift", "check", f"--log={tmp_path / 'log.jsonl'}", "--window=150"]
    quiet = finish(checked)
    assert quiet.returncode == 0, quiet.stdout + quiet.stderr
    assert "photographs 1-150: quiet" in quiet.stdout
