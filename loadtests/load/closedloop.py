"""Closed loop: Locust as a child process, and the statistics that it wrote.

Locust replaces Python's sockets and threads when it is imported, so it gets a process of its own.
"""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from loadtests.load import shapes
from loadtests.load.http_client import Target
from loadtests.load.shapes import Stage
from loadtests.results.stats import RequestStats

LOCUSTFILE = Path(__file__).parents[1] / "locustfile.py"
# Beyond the stages: making images, one calibration request each, processes that start and end.
_AROUND_S = 120
_REPORT_S = 8


class LocustError(Exception):
    """Locust ended without results; the message says what to look at."""


def run(
    target: Target, stages: Sequence[Stage], options: Sequence[str], folder: Path, processes: int = 1
) -> tuple[float, RequestStats, bool]:
    """Let Locust's users load a target.

    Args:
        options: those of `loadtests.load.workload`, passed on.
        folder: where Locust's own report and log go.

    Returns:
        When the first stage began (seconds since 1970), what became of the requests, and whether it was interrupted.
    """
    path = folder / "stats.json"
    path.unlink(missing_ok=True)
    child = subprocess.Popen(command(target, stages, options, folder, path, processes))
    limit_s = sum(stage.seconds for stage in stages) + _AROUND_S
    interrupted = False
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(limit_s)
    except KeyboardInterrupt:
        # From a terminal Locust got the same signal and is writing its report; a second one would cut that short.
        interrupted = True
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_REPORT_S)
    finally:
        _end(child)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LocustError(
            f"Locust ended with code {child.returncode} and no results: see its messages above"
        ) from error
    path.unlink()
    return float(content["started_s"]), RequestStats.from_json(content["stats"]), interrupted


def command(
    target: Target, stages: Sequence[Stage], options: Sequence[str], folder: Path, stats: Path, processes: int
) -> list[str]:
    """Return Locust's command line."""
    forks = ["--processes", str(processes)] if processes > 1 else []
    return [
        *[sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary"],
        *["--loglevel", "WARNING", "--html", str(folder / "locust.html")],
        *["--host", target.origin, "--path", target.path],
        *["--stages", shapes.to_text(stages), "--stats-file", str(stats), *forks, *options],
    ]


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ask Locust to end and to report, unless it has ended; kill it if it does not.

    While a load shape runs, Locust handles no other signal than SIGINT.
    """
    if child.poll() is None:
        child.send_signal(signal.SIGINT)
    try:
        child.wait(_REPORT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
