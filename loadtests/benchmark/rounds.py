"""Rounds: every competitor is started, measured and stopped in turn, again and again; each result is kept at once.

Interleaving spreads the machine's moods over all competitors, and a server that is started anew each time shows its
cold start. An interrupted benchmark goes on where it stopped.
"""

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.benchmark import client, server
from loadtests.benchmark.server import Server, ServerError
from loadtests.benchmark.services import ROOT, Service
from loadtests.load.images import Photograph
from loadtests.load.workload import Traffic
from loadtests.results import expected_labels
from loadtests.results.expected_labels import CalibrationError

FILE_NAME = "measurements.jsonl"
CEILINGS = "ceilings"
Measurement = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How each competitor is measured: windows of ``seconds`` after ``warm_up_s`` at each number of connections.

    ``broken_share`` is sent once more at the most connections, to the services of ``with_broken``.
    """

    rounds: int
    seconds: float
    warm_up_s: float
    connections: tuple[int, ...] = (1, 8, 32)
    broken_share: float = 0.01
    with_broken: tuple[str, ...] = ("ours",)


class Notebook:
    """The measurements so far, in a file that is added to as each is made."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        text = self._path.read_text(encoding="utf-8") if self._path.is_file() else ""
        self.measurements: list[Measurement] = [json.loads(line) for line in text.splitlines() if line.endswith("}")]

    def add(self, measurement: Measurement) -> None:
        """Keep a measurement."""
        self.measurements.append(measurement)
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(measurement) + "\n")

    def has(self, round_: int, subject: str) -> bool:
        """Say whether a competitor was measured in a round."""
        return any(entry["round"] == round_ and entry["subject"] == subject for entry in self.measurements)


def run(
    plan: Plan,
    services: Sequence[Service],
    ceilings: Callable[[], Measurement],
    photographs: Sequence[Photograph],
    notebook: Notebook,
    say: Callable[[str], None],
) -> None:
    """Run what is missing of all rounds; a competitor that fails is said, noted and passed over in that round."""
    for round_ in range(1, plan.rounds + 1):
        if not notebook.has(round_, CEILINGS):
            notebook.add({"round": round_, "subject": CEILINGS, **ceilings()})
            say(f"round {round_}/{plan.rounds}  ceilings measured")
        for service in services:
            if notebook.has(round_, service.name):
                continue
            say(f"round {round_}/{plan.rounds}  {service.name} ...")
            try:
                found = measure(plan, service, photographs, seed=round_)
            except (ServerError, CalibrationError) as error:
                found = {"error": str(error)}
            notebook.add({"round": round_, "subject": service.name, **found})
            say(line(round_, plan, service.name, found))


def measure(plan: Plan, service: Service, photographs: Sequence[Photograph], seed: int) -> Measurement:
    """Start a service, measure it at each number of connections and stop it.

    Raises:
        ServerError, CalibrationError: it did not start, or does not answer every photograph.
    """
    with (
        tempfile.TemporaryDirectory(prefix="visionserve-bench-") as folder,
        server.running(service.launch(), Path(folder, "log.txt")) as running,
    ):
        found: Measurement = {"first_answer_s": running.first_answer(photographs[0].body), "windows": {}}
        expected = dict(expected_labels.calibrate(running.target, photographs).labels)
        for connections in plan.connections:
            traffic = Traffic(photographs, expected, seed=seed)
            found["windows"][str(connections)] = _window(plan, running, traffic, connections)
        found["memory_mb"] = running.memory_mb()
        if service.name in plan.with_broken:
            traffic = Traffic(photographs, expected, plan.broken_share, seed)
            found["with_broken"] = _window(plan, running, traffic, max(plan.connections))
        return found


def measured_ceilings(archive: Path, photos: Path, seconds: float, folder: Path) -> Measurement:
    """Run the ceilings in a process of their own and return what they measured."""
    output = folder / "ceilings.json"
    command = [sys.executable, "-m", "loadtests.benchmark.ceilings", f"--archive={archive}", f"--photos={photos}"]
    subprocess.run([*command, f"--seconds={seconds}", f"--output={output}"], check=True, cwd=ROOT)
    content: Measurement = {"ceilings": json.loads(output.read_text(encoding="utf-8"))}
    output.unlink()
    return content


def line(round_: int, plan: Plan, name: str, found: Measurement) -> str:
    """Return a measurement as one line for a terminal."""
    start = f"round {round_}/{plan.rounds}  {name:<24}"
    if "error" in found:
        return f"{start} FAILED: {found['error']}"
    rates = ", ".join(f"{count}: {window['images_per_s']:.0f}/s" for count, window in found["windows"].items())
    faults = sum(window["faults"] for window in found["windows"].values())
    return (
        f"{start} {rates}; first answer {found['first_answer_s']:.1f} s; {found['memory_mb']:.0f} MB; faults {faults}"
    )


def _window(plan: Plan, running: Server, traffic: Traffic, connections: int) -> dict[str, float | None]:
    window = client.measure(running.target, traffic, connections, plan.warm_up_s, plan.seconds, running.cpu_s)
    # JSON has no NaN.
    return {name: None if math.isnan(value) else round(value, 4) for name, value in window.summary().items()}
