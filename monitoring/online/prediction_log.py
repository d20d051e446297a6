"""The prediction log: append-only JSON Lines, one event per line, without image content or file names.

    {"event": "start", "run", "time", "url", "images"}   a run begins
    {"event": "image", "run", "time", "image", ...}      one was answered, rejected or could not be read
    {"event": "end", "run", "time"}                      the run is complete

A run without an end was interrupted, and the next one with the same images continues it. Every line is written in one
piece as soon as it is known; a line truncated by a kill or a full disk is skipped when read, and the next writer starts
on a new line.
"""

import json
import os
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

UNREADABLE = "unreadable"  # the code of an image file that could not be read here


@dataclass(frozen=True)
class Entry:
    """The result of one posted image.

    Attributes:
        image: SHA-256 of its path below the root; the path itself may contain names of people.
        label: its true label; None where the model does not have that label.
        accept: further labels that count as right.
        status: the HTTP status; None when nothing was sent.
        code: the error code; None when it was answered.
        best: the most probable labels, each with its probability.
        latency_s: of the last attempt, without the waits before it.
        attempts: requests that were sent for it, the retries of a busy service included.
        timings: from Server-Timing, in seconds.
        properties: brightness, contrast, sharpness and resolution, where they were measured.
    """

    run: str
    time: str
    image: str
    label: str | None
    status: int | None
    code: str | None = None
    request_id: str | None = None
    model: str | None = None
    version: str | None = None
    best: tuple[tuple[str, float], ...] = ()
    novelty: float | None = None
    latency_s: float | None = None
    attempts: int = 1
    timings: dict[str, float] | None = None
    properties: dict[str, float | None] | None = None
    accept: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether it was answered."""
        return self.code is None

    @property
    def prediction(self) -> str | None:
        """The most probable label."""
        return self.best[0][0] if self.best else None

    @property
    def right(self) -> bool:
        """Whether the most probable label counts as right."""
        return self.accepts(self.prediction)

    def accepts(self, label: str | None) -> bool:
        """Return whether a label counts as right."""
        return label is not None and label in (self.label, *self.accept)

    @property
    def probability(self) -> float | None:
        """The probability of the most probable label."""
        return self.best[0][1] if self.best else None


@dataclass(frozen=True)
class Start:
    """A run: the service's URL, and a hash of the posted images and labels."""

    run: str
    time: str
    url: str
    images: str


@dataclass(frozen=True)
class Log:
    """The events of a log, in order; ``ended`` holds complete runs, ``skipped`` counts unusable lines."""

    starts: tuple[Start, ...]
    images: tuple[Entry, ...]
    ended: frozenset[str]
    skipped: int

    def unfinished(self, url: str, images: str) -> str | None:
        """Return the newest run if it posted these images to this URL and was interrupted."""
        last = self.starts[-1] if self.starts else None
        if last is None or last.run in self.ended or (last.url, last.images) != (url, images):
            return None
        return last.run

    def of(self, run: str) -> list[Entry]:
        """Return the images of one run."""
        return [entry for entry in self.images if entry.run == run]


class Writer:
    """Appends events to a log; each is handed to the operating system when the call returns."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        if _truncated(path):
            self._write(b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            os.fsync(self._file.fileno())
        finally:
            self._file.close()

    def start(self, run: Start) -> None:
        """Write that a run begins."""
        self._append({"event": "start"} | asdict(run))

    def image(self, entry: Entry) -> None:
        """Write the result of an image."""
        content = {
            name: value
            for name, value in asdict(entry).items()
            if value not in (None, ()) and (name, value) != ("attempts", 1)
        }
        self._append({"event": "image"} | content)

    def end(self, run: str) -> None:
        """Write that a run is complete."""
        self._append({"event": "end", "run": run, "time": now()})

    def _append(self, content: dict[str, Any]) -> None:
        self._write(json.dumps(content, separators=(",", ":")).encode() + b"\n")

    def _write(self, data: bytes) -> None:
        while data:  # a disk that fills up accepts a part first and fails on the rest
            data = data[self._file.write(data) :]


def read(path: Path) -> Log:
    """Read a log; a missing file is an empty log."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        lines = []
    starts: list[Start] = []
    images: list[Entry] = []
    ended: set[str] = set()
    skipped = 0
    for line in filter(None, lines):
        match _parsed(line):
            case Start() as start:
                starts.append(start)
            case Entry() as entry:
                images.append(entry)
            case str(run):
                ended.add(run)
            case None:
                skipped += 1
    return Log(tuple(starts), tuple(images), frozenset(ended), skipped)


def now() -> str:
    """Return the current time as the log writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _parsed(line: bytes) -> Start | Entry | str | None:
    """Return the event of a line, the run of an end, or None for a truncated or foreign line."""
    try:
        content = json.loads(line)
        event = content.pop("event")
        if event == "start":
            return Start(**content)
        if event == "end":
            return str(content["run"])
        names = {field.name for field in fields(Entry)}
        best = tuple((str(label), float(probability)) for label, probability in content.pop("best", ()))
        accept = tuple(str(label) for label in content.pop("accept", ()))
        missing = {"label": None, "status": None}  # None is not written
        values = {name: value for name, value in content.items() if name in names}
        return Entry(**(missing | values), best=best, accept=accept) if event == "image" else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _truncated(path: Path) -> bool:
    """Return whether the last line of a file has no line feed."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
