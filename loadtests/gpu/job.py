"""Job: what one part of the measurement gets, and the file that it writes its rows to as it goes."""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Device = Literal["cuda", "cpu"]


@dataclass(frozen=True)
class Job:
    """What a part measures with.

    ``archive`` is a .mar for this device and ``unpacked`` its content, None where there is none; ``images`` a folder of
    encoded images, ``synthetic`` when they were made here. ``seconds`` is the time for this part; ``quick`` asks for
    the shortest run that exercises everything. Rows go to ``output``, a JSON file.
    """

    bundle: str
    archive: str | None
    unpacked: str | None
    images: str
    synthetic: bool
    device: Device
    quick: bool
    seconds: float
    output: str

    def save(self, path: Path) -> None:
        """Write it for the part's process."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


class Results:
    """Rows of a part, on disk as soon as they are measured, so that a part that is ended early loses none."""

    def __init__(self, job: Job) -> None:
        self._path = Path(job.output)
        self._deadline = time.monotonic() + job.seconds
        self._content: dict[str, Any] = {"rows": [], "left_out": [], "complete": False}
        self._write()

    @property
    def remaining_s(self) -> float:
        """Seconds until the part's time is over."""
        return self._deadline - time.monotonic()

    def add(self, what: str, value: str, **numbers: float | str | None) -> None:
        """Add a row: what was measured and its value as the table shows it; ``numbers`` are for programs."""
        self._content["rows"].append({"what": what, "value": value, **numbers})
        self._write()

    def leave_out(self, what: str) -> None:
        """Say what was not measured, and why."""
        self._content["left_out"].append(what)
        self._write()

    def has_time(self, seconds: float, what: str) -> bool:
        """Return whether there is time for something; what does not fit is recorded as left out."""
        if self.remaining_s >= seconds:
            return True
        self.leave_out(f"{what}: no time left")
        return False

    def complete(self) -> None:
        """Mark the part as run to its end."""
        self._content["complete"] = True
        self._write()

    def _write(self) -> None:
        unfinished = self._path.with_name(self._path.name + ".unfinished")
        unfinished.write_text(json.dumps(self._content, indent=1), encoding="utf-8")
        unfinished.replace(self._path)


def run_part(parts: Mapping[str, Callable[[Job, Results], None]]) -> None:
    """Run the part that the command line names; for the processes that `command` starts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=list(parts))
    parser.add_argument("job", type=Path)
    args = parser.parse_args()
    job = Job(**json.loads(args.job.read_text(encoding="utf-8")))
    results = Results(job)
    parts[args.part](job, results)
    results.complete()
