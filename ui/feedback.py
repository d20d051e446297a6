"""Feedback: a person's correction of an answer, appended to a JSON Lines file; an image only by its name.

Several pages may write to one file, and any of them may be killed at any moment: each line is one write under a lock,
on the disk before the page says thank you; an incomplete last line stays on a line of its own, which readers skip.
"""

import fcntl
import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from visionserve.client import Answer

Verdict = Literal["right", "wrong"]


@dataclass(frozen=True)
class Feedback:
    """One line of the file.

    ``label`` is what the person says it is, None for "wrong, but I do not know"; ``image`` the path of the image below
    the address of the kept ones, None where the person did not let it be kept.
    """

    time: str
    request_id: str
    model: str
    version: str
    predicted: str
    probability: float
    label: str | None
    verdict: Verdict
    image: str | None = None


def judge(answer: Answer, label: str | None, now: datetime | None = None, *, image: str | None = None) -> Feedback:
    """Return the feedback of a person for whom ``label`` is right, or None: the predicted label is wrong."""
    best = answer.best
    return Feedback(
        time=(now or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        request_id=answer.request_id,
        model=answer.model.name,
        version=answer.model.version,
        predicted=best.label,
        probability=best.probability,
        label=label,
        verdict="right" if label == best.label else "wrong",
        image=image,
    )


def record(feedback: Feedback, path: Path) -> None:
    """Append a line and wait until the disk has it; OSError when it cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(asdict(feedback), ensure_ascii=False).encode() + b"\n"
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        _append(descriptor, line if _ends_with_newline(descriptor) else b"\n" + line)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)  # releases the lock


def _ends_with_newline(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"


def _append(descriptor: int, data: bytes) -> None:
    """Write all of it: a disk that fills up takes a part first and rejects the rest."""
    while data:
        data = data[os.write(descriptor, data) :]
