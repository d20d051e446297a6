"""The live log: append-only JSON Lines, one line a fact, no image content and no file names.

    {"event": "start", "run", "time", "url", "photographs"}      a run begins
    {"event": "photograph", "run", "time", "photograph", ...}    one was answered, refused or could not be read
    {"event": "end", "run", "time"}                              the run is complete

A run without an end was interrupted, and the next one with the same photographs goes on with it. Every line is written
in one piece as soon as it is known; a line cut off by a kill or a full disk is left out when read, and the next writer
starts on a new line.
"""

import json
import os
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

UNREADABLE = "unreadable"  # the code of a photograph that never left this machine


@dataclass(frozen=True)
class Photograph:
    """What became of one posted photograph.

    Attributes:
        photograph: SHA-256 of its path below the root; the path itself may tell of people.
        label: what it shows; None where the model does not have that label.
        status: the HTTP status; None when nothing was sent.
        code: the error's code; None when it was answered.
        best: the most probable labels, each with its probability.
        timings: from Server-Timing, in seconds.
        properties: brightness, contrast, sharpness and resolution, where they were measured.
    """

    run: str
    time: str
    photograph: str
    label: str | None
    status: int | None
    code: str | None = None
    request_id: str | None = None
    model: str | None = None
    version: str | None = None
    best: tuple[tuple[str, float], ...] = ()
    novelty: float | None = None
    latency_s: float | None = None
    timings: dict[str, float] | None = None
    properties: dict[str, float | None] | None = None

    @property
    def ok(self) -> bool:
        """Whether it was answered."""
        return self.code is None

    @property
    def prediction(self) -> str | None:
        """The most probable label."""
        return self.best[0][0] if self.best else None

    @property
    def probability(self) -> float | None:
        """The probability of the most probable label."""
        return self.best[0][1] if self.best else None


@dataclass(frozen=True)
class Start:
    """A run: where it posted, and a hash of which photographs."""

    run: str
    time: str
    url: str
    photographs: str


@dataclass(frozen=True)
class Log:
    """Everything in a log, in order; ``ended`` holds complete runs, ``skipped`` counts unusable lines."""

    starts: tuple[Start, ...]
    photographs: tuple[Photograph, ...]
    ended: frozenset[str]
    skipped: int

    def unfinished(self, url: str, photographs: str) -> str | None:
        """Return the newest run when it is such a one and was interrupted."""
        last = self.starts[-1] if self.starts else None
        if last is None or last.run in self.ended or (last.url, last.photographs) != (url, photographs):
            return None
        return last.run

    def of(self, run: str) -> list[Photograph]:
        """Return the photographs of one run."""
        return [entry for entry in self.photographs if entry.run == run]


class Writer:
    """Appends facts to a log; each is on the disk's side when the call returns."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        if _cut_off(path):
            self._write(b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            os.fsync(self._file.fileno())
        finally:
            self._file.close()

    def start(self, run: Start) -> None:
        """Note that a run begins."""
        self._append({"event": "start"} | asdict(run))

    def photograph(self, entry: Photograph) -> None:
        """Note what became of a photograph."""
        content = {name: value for name, value in asdict(entry).items() if value not in (None, ())}
        self._append({"event": "photograph"} | content)

    def end(self, run: str) -> None:
        """Note that a run is complete."""
        self._append({"event": "end", "run": run, "time": now()})

    def _append(self, content: dict[str, Any]) -> None:
        self._write(json.dumps(content, separators=(",", ":")).encode() + b"\n")

    def _write(self, data: bytes) -> None:
        while data:  # a disk that fills up takes a part first and refuses the rest
            data = data[self._file.write(data) :]


def read(path: Path) -> Log:
    """Read a log; one that does not exist yet is empty."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        lines = []
    starts: list[Start] = []
    photographs: list[Photograph] = []
    ended: set[str] = set()
    skipped = 0
    for line in filter(None, lines):
        match _parsed(line):
            case Start() as start:
                starts.append(start)
            case Photograph() as photograph:
                photographs.append(photograph)
            case str(run):
                ended.add(run)
            case None:
                skipped += 1
    return Log(tuple(starts), tuple(photographs), frozenset(ended), skipped)


def now() -> str:
    """Return the time as it stands in the log."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _parsed(line: bytes) -> Start | Photograph | str | None:
    """Return the fact of a line, the run of an end, or None for a line that is cut off or not ours."""
    try:
        content = json.loads(line)
        event = content.pop("event")
        if event == "start":
            return Start(**content)
        if event == "end":
            return str(content["run"])
        known = {entry.name for entry in fields(Photograph)}
        best = tuple((str(label), float(probability)) for label, probability in content.pop("best", ()))
        missing = {"label": None, "status": None}  # None is not written
        chosen = {name: value for name, value in content.items() if name in known}
        return Photograph(**(missing | chosen), best=best) if event == "photograph" else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _cut_off(path: Path) -> bool:
    """Whether the last line of a file has no end."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
