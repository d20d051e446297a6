"""User feedback: verdicts written by the web page; read, counted and joined with the prediction log.

One JSON object a line: time, request_id, model, version, predicted, probability, label (null where the user only said
that the prediction is wrong), verdict (right or wrong), image (path of the kept image, null where the user did not let
it be kept; absent in older lines). Users choose which answers they judge, so the share of right ones does not estimate
the accuracy. Its changes and its confusions are useful.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

BIAS = (
    "Users choose which answers they judge, so this share does not estimate the accuracy; "
    "watch how it changes and which labels are confused."
)

# As ui.kept_images names them: nothing that leads elsewhere.
_KEPT = re.compile(r"\d{4}-\d\d-\d\d/[0-9a-f]{64}\.[a-z]+")


@dataclass(frozen=True)
class Judgement:
    """A user's verdict on one answer; ``label`` is the one that the user gave, ``image`` the path of the kept image."""

    time: str
    request_id: str
    model: str
    version: str
    predicted: str
    probability: float
    label: str | None
    verdict: Literal["right", "wrong"]
    image: str | None = None


@dataclass(frozen=True)
class Feedback:
    """The judgements of a file, the last one for each request; ``skipped`` counts unusable lines."""

    judgements: tuple[Judgement, ...]
    skipped: int


@dataclass(frozen=True)
class Summary:
    """Counts of the verdicts.

    ``confused`` holds (predicted, corrected) pairs with their counts, the most frequent first. ``joined`` is how many
    judged requests are in the prediction log too; ``confirmed`` how many of them agree with the log's label, of the
    ``comparable`` ones where both have a label.
    """

    right: int
    wrong: int
    skipped: int
    confused: tuple[tuple[str, str, int], ...]
    joined: int
    comparable: int
    confirmed: int


def read(path: Path) -> Feedback:
    """Read a file of feedback; a truncated or foreign line is counted and skipped."""
    judgements: dict[str, Judgement] = {}
    skipped = 0
    for line in filter(None, path.read_bytes().split(b"\n")):
        judgement = _parsed(line)
        if judgement is None:
            skipped += 1
        else:
            judgements[judgement.request_id] = judgement
    return Feedback(tuple(judgements.values()), skipped)


def summarise(feedback: Feedback, truths: Mapping[str, str | None]) -> Summary:
    """Count the verdicts.

    Args:
        truths: the label of each request in the prediction log by its request id; None where it has none.
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
        content = {"image": None} | content
        judgement = Judgement(**{entry.name: content[entry.name] for entry in fields(Judgement)})
    except (ValueError, TypeError, KeyError):
        return None
    valid = (
        judgement.verdict in ("right", "wrong")
        and isinstance(judgement.request_id, str)
        and isinstance(judgement.probability, int | float)
        and (judgement.image is None or _KEPT.fullmatch(str(judgement.image)) is not None)
    )
    return judgement if valid else None
