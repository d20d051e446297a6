"""Online evaluation of a real service: the answers that were evaluated, whatever happens on the way."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from monitoring.online import prediction_log
from tests.e2e.conftest import BUNDLE, E2E, ROOT, VERSION, Service, free_ports

pytestmark = E2E
LABELS = ("rose", "sunflower", "water lily")


@pytest.fixture(scope="module")
def labelled(photographs: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic images under labels that they need not show, one corrupt and one that cannot be read."""
    root = tmp_path_factory.mktemp("labelled")
    for number in range(60):
        folder = root / LABELS[number % 3]
        folder.mkdir(exist_ok=True)
        (folder / f"{number:03d}.jpg").write_bytes(photographs[number % len(photographs)])
    (root / "rose" / "broken.jpg").write_bytes(b"no image at all")
    (root / "rose" / "gone.jpg").symlink_to(root / "nothing.jpg")
    return root


def command(images: Path, url: str, folder: Path, *options: str) -> list[str]:
    outputs = [f"--log={folder / 'log.jsonl'}", f"--report={folder / 'reports'}", f"--textfile={folder / 'live.prom'}"]
    return [sys.executable, "-m", "monitoring", "evaluate", f"--images={images}", f"--url={url}", *outputs, *options]


def last_metrics(folder: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((max((folder / "reports").iterdir()) / "metrics.json").read_text())
    return metrics


def finish(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)


def test_the_service_answers_as_the_bundle_does_in_this_process(
    service: Service, labelled: Path, tmp_path: Path
) -> None:
    done = finish(command(labelled, service.url(""), tmp_path, f"--bundle={BUNDLE}", "--compare"))
    assert done.returncode == 0, done.stderr
    report = last_metrics(tmp_path)
    assert report["answered"] == report["agreement"]["images"] == 60
    assert report["agreement"]["same_label"] == report["agreement"]["same_probability"] == 60
    assert report["rejected"] == {"unsupported_image": 1}
    assert report["unreadable"] == 1
    assert (report["model"], report["version"]) == ("flowers", VERSION)
    assert (report["retried"], report["attempts"]) == (0, 61)
    assert set(report["timings_s"]) == {"decode", "inference", "total"}
    assert "rose/gone.jpg: unreadable" in done.stderr
    assert (
        f'visionserve_live_agreement{{model="flowers",version="{VERSION}"}} 1.0' in (tmp_path / "live.prom").read_text()
    )


def test_ctrl_c_loses_nothing_and_the_same_command_goes_on(service: Service, labelled: Path, tmp_path: Path) -> None:
    arguments, log = command(labelled, service.url(""), tmp_path, "--concurrency=1"), tmp_path / "log.jsonl"
    running = subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_bytes().count(b"\n") > 3):
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    running.send_signal(signal.SIGINT)
    _, output = running.communicate(timeout=60)
    done = len(prediction_log.read(log).images)
    assert running.returncode == 130, output
    assert output.startswith("Interrupted. ")
    assert 2 < done < 62
    with log.open("ab") as file:
        file.write(b'{"event":"image","run":"2026-')  # a kill would leave this
    again = finish(arguments)
    assert again.returncode == 0, again.stderr
    assert f"{done} of 62 images are done" in again.stderr
    entries = prediction_log.read(log).images
    assert len(entries) == len({entry.image for entry in entries}) == 62


def test_without_a_service_it_says_so_in_one_sentence(labelled: Path, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    done = finish(command(labelled, f"http://127.0.0.1:{port}", tmp_path))
    assert done.returncode == 3
    assert f"No visionserve service answers at http://127.0.0.1:{port}" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(
    "VISIONSERVE_DATA" not in os.environ, reason="set VISIONSERVE_DATA to a folder that has flowers-102"
)
def test_on_test_photographs_it_finds_what_the_card_promises(service: Service, tmp_path: Path) -> None:
    root = Path(os.environ["VISIONSERVE_DATA"]) / "flowers-102"
    options = [f"--root={root}", f"--bundle={BUNDLE}", "--limit=150"]
    done = finish(command(BUNDLE / "manifest.csv", service.url(""), tmp_path, *options))
    assert done.returncode == 0, done.stderr
    report = last_metrics(tmp_path)
    assert report["offline"]["test"] == "pairs"  # they are the card's own images
    assert not report["offline"]["below"]
    command_line = [
        sys.executable,
        "-m",
        "monitoring",
        "drift",
        "check",
        f"--log={tmp_path / 'log.jsonl'}",
        "--window=150",
    ]
    drift = finish(command_line)
    assert drift.returncode == 0, drift.stdout + drift.stderr
    assert "images 1-150: no drift" in drift.stdout
