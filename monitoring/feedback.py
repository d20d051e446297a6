"""Feedback: what people said of answers, as the page wrote it; read, counted and joined with the live log.

One JSON object a line: time, request_id, model, version, predicted, probability, label (null where the person only said
what it is not), verdict (right or wrong). Who answers is not chosen by chance: people speak up when an answer annoys or
pleases them, so the share that was right is no estimate of the accuracy. Its changes and its confusions are worth
reading.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

BIAS = (
    "People choose which answers to judge, so this share is no estimate of the accuracy; "
    "watch how it changes and what is confused."
)


@dataclass(frozen=True)
class Judgement:
    """A person's verdict on one answer; ``label`` is what they say it shows."""

    time: str
    request_id: str
    model: str
    version: str
    predicted: str
    probability: float
    label: str | None
    verdict: Literal["right", "wrong"]


@dataclass(frozen=True)
class Feedback:
    """The judgements of a file, the last one for each request; ``skipped`` counts unusable lines."""

    judgements: tuple[Judgement, ...]
    skipped: int


@dataclass(frozen=True)
class Summary:
    """What was said.

    ``confused`` holds (predicted, said to be) pairs with their counts, the most frequent first. ``joined`` is how many
    judged requests are in the live log too; ``confirmed`` how many of them the log's own label bears out, of those
    where both name one.
    """

    right: int
    wrong: int
    skipped: int
    confused: tuple[tuple[str, str, int], ...]
    joined: int
    comparable: int
    confirmed: int


def read(path: Path) -> Feedback:
    """Read a file of feedback; a line that is cut off or not ours is counted and left out."""
    found: dict[str, Judgement] = {}
    skipped = 0
    for line in filter(None, path.read_bytes().split(b"\n")):
        judgement = _parsed(line)
        if judgement is None:
            skipped += 1
        else:
            found[judgement.request_id] = judgement
    return Feedback(tuple(found.values()), skipped)


def summarise(feedback: Feedback, truths: Mapping[str, str | None]) -> Summary:
    """Count the judgements.

    Args:
        truths: the label of each request of the live log by its request id; None where it has none.
    """
    wrong = [judgement for judgement in feedback.judgements if judgement.verdict == "wrong"]
    pairs = Counter((entry.predicted, entry.label) for entry in wrong if entry.label is not None)
    joined = [entry for entry in feedback.judgements if entry.request_id in truths]
    comparable = [entry for entry in joined if entry.label is not None and truths[entry.request_id] is not None]
    return Summary(
        right=len(feedback.judgements) - len(wrong),
        wrong=len(wrong),
        skipped=feedback.skipped,
        confused=tuple((predicted, label, count) for (predicted, label), count in _most_frequent(pairs)),
        joined=len(joined),
        comparable=len(comparable),
        confirmed=sum(entry.label == truths[entry.request_id] for entry in comparable),
    )


def _most_frequent(pairs: Counter[tuple[str, str]]) -> Iterable[tuple[tuple[str, str], int]]:
    return sorted(pairs.items(), key=lambda entry: (-entry[1], entry[0]))


def _parsed(line: bytes) -> Judgement | None:
    try:
        content: dict[str, Any] = json.loads(line)
        judgement = Judgement(**{entry.name: content[entry.name] for entry in fields(Judgement)})
    except (ValueError, TypeError, KeyError):
        return None
    sound = judgement.verdict in ("right", "wrong") and isinstance(judgement.request_id, str)
    return judgement if sound else None
