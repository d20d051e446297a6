"""Rounds: in each one every competitor is started, measured and stopped in turn; each result is written at once.

Interleaving spreads the machine's slow and fast minutes over all competitors, and starting a server each time shows its
cold start. An interrupted benchmark continues where it stopped.
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
from loadtests.load.images import EncodedImage
from loadtests.load.workload import Workload
from loadtests.results.validation import CalibrationError, calibrate

FILE_NAME = "measurements.jsonl"
CEILINGS = "ceilings"
Measurement = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How each competitor is measured: windows of ``seconds`` after ``warm_up_s`` at each number of connections.

    ``invalid_share`` is sent once more over the largest number of connections, to the services of ``with_invalid``.
    """

    rounds: int
    seconds: float
    warm_up_s: float
    connections: tuple[int, ...] = (1, 8, 32)
    invalid_share: float = 0.01
    with_invalid: tuple[str, ...] = ("visionserve",)


class MeasurementLog:
    """The measurements so far; each is appended to a file as it is made."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        text = self._path.read_text(encoding="utf-8") if self._path.is_file() else ""
        self.measurements: list[Measurement] = [json.loads(line) for line in text.splitlines() if line.endswith("}")]

    def add(self, measurement: Measurement) -> None:
        """Append a measurement."""
        self.measurements.append(measurement)
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(measurement) + "\n")

    def has(self, round_: int, subject: str) -> bool:
        """Return whether a competitor was measured in a round."""
        return any(entry["round"] == round_ and entry["subject"] == subject for entry in self.measurements)


def run(
    plan: Plan,
    services: Sequence[Service],
    ceilings: Callable[[], Measurement],
    images: Sequence[EncodedImage],
    log: MeasurementLog,
    say: Callable[[str], None],
) -> None:
    """Run what is missing of all rounds; a competitor that fails is reported, recorded and skipped in that round."""
    for round_ in range(1, plan.rounds + 1):
        if not log.has(round_, CEILINGS):
            log.add({"round": round_, "subject": CEILINGS, **ceilings()})
            say(f"round {round_}/{plan.rounds}  ceilings measured")
        for service in services:
            if log.has(round_, service.name):
                continue
            say(f"round {round_}/{plan.rounds}  {service.name} ...")
            try:
                measurement = measure(plan, service, images, seed=round_)
            except (ServerError, CalibrationError) as error:
                measurement = {"error": str(error)}
            log.add({"round": round_, "subject": service.name, **measurement})
            say(line(round_, plan, service.name, measurement))


def measure(plan: Plan, service: Service, images: Sequence[EncodedImage], seed: int) -> Measurement:
    """Start a service, measure it at each number of connections and stop it.

    Raises:
        ServerError, CalibrationError: it did not start, or does not answer every image.
    """
    with (
        tempfile.TemporaryDirectory(prefix="visionserve-bench-") as folder,
        server.running(service.launch(), Path(folder, "log.txt")) as running,
    ):
        measurement: Measurement = {"first_answer_s": running.first_answer(images[0].body), "windows": {}}
        expected = dict(calibrate(running.target, images).labels)
        for connections in plan.connections:
            workload = Workload(images, expected, seed=seed)
            measurement["windows"][str(connections)] = _window(plan, running, workload, connections)
        measurement["memory_mb"] = running.memory_mb()
        if service.name in plan.with_invalid:
            workload = Workload(images, expected, plan.invalid_share, seed)
            measurement["with_invalid"] = _window(plan, running, workload, max(plan.connections))
        return measurement


def measured_ceilings(archive: Path, image_folder: Path, seconds: float, folder: Path) -> Measurement:
    """Run the ceilings in a process of their own and return what they measured."""
    output = folder / "ceilings.json"
    command = [sys.executable, "-m", "loadtests.benchmark.ceilings", f"--archive={archive}", f"--images={image_folder}"]
    subprocess.run([*command, f"--seconds={seconds}", f"--output={output}"], check=True, cwd=ROOT)
    content: Measurement = {"ceilings": json.loads(output.read_text(encoding="utf-8"))}
    output.unlink()
    return content


def line(round_: int, plan: Plan, name: str, measurement: Measurement) -> str:
    """Return a measurement as one line for a terminal."""
    start = f"round {round_}/{plan.rounds}  {name:<24}"
    if "error" in measurement:
        return f"{start} FAILED: {measurement['error']}"
    rates = ", ".join(f"{count}: {window['images_per_s']:.0f}/s" for count, window in measurement["windows"].items())
    faults = sum(window["faults"] for window in measurement["windows"].values())
    first_s, memory_mb = measurement["first_answer_s"], measurement["memory_mb"]
    return f"{start} {rates}; first answer {first_s:.1f} s; {memory_mb:.0f} MB; faults {faults}"


def _window(plan: Plan, running: Server, workload: Workload, connections: int) -> dict[str, float | None]:
    window = client.measure(running.target, workload, connections, plan.warm_up_s, plan.seconds, running.cpu_s)
    # JSON has no NaN.
    return {name: None if math.isnan(value) else round(value, 4) for name, value in window.summary().items()}
