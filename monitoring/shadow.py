"""`python -m monitoring shadow`: how far a version in the shadow agrees with the one that answers.

    the gateway's log: lines of requests (request_id, prediction)
    + lines of copies (request_id, shadow, status, prediction) -> pairs by id

Agreement says how much a release would change, not which version is right: only labels do (`compare`, or a share).
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

from training.evaluation.intervals import few_images, wilson
from visionserve.errors import BundleError

_MODEL = re.compile(r"/(?:predictions|explanations|models)/([^/:]+)")
_DROPPED = "429"
_CHANGES = 5  # the most frequent ones, printed


@dataclass(frozen=True)
class Answered:
    """What a version said of a request: (label, probability) of the best label of each image, and after how long."""

    version: str
    best: tuple[tuple[str, float], ...]
    seconds: float


@dataclass
class Comparison:
    """The copies of one pair of versions, and (served, shadow) of those that both answered."""

    copies: int = 0
    dropped: int = 0
    failed: int = 0
    unpaired: int = 0
    pairs: list[tuple[Answered, Answered]] = field(default_factory=list)


def run(args: argparse.Namespace) -> int:
    """Print the agreement of each model with a version in the shadow."""
    with args.log.open(encoding="utf-8", errors="replace") as lines:
        compared = compare(lines)
    if not compared:
        raise BundleError(
            f"{args.log} has no line of a copy: it is the gateway's output while a version is in the shadow "
            "(`make release MODEL=NAME TO=VERSION SHADOW=100`)"
        )
    for (model, version), comparison in sorted(compared.items()):
        print("\n".join(report(model, version, comparison)))
    return 0


def compare(lines: Iterable[str]) -> dict[tuple[str, str], Comparison]:
    """Return a comparison by model and version in the shadow; other lines than the gateway's JSON are passed over."""
    served: dict[str, Answered | None] = {}
    copies: list[tuple[str, str, str, Answered | None]] = []
    for record in _records(lines):
        request, answered = str(record["request_id"]), _answered(record)
        if "shadow" in record:
            copies.append((request, str(record["shadow"]), str(record.get("status", "")), answered))
        elif answered is not None:
            served[request] = None if request in served else answered  # an id that a client gave twice says nothing
    repeated = Counter(request for request, *_ in copies)
    compared: dict[tuple[str, str], Comparison] = {}
    for request, path, status, answered in copies:
        model = _MODEL.search(path)
        version = path.removesuffix("/infer").rpartition("/")[2]
        comparison = compared.setdefault((model[1] if model else path, version), Comparison())
        comparison.copies += 1
        answer = served.get(request) if repeated[request] == 1 else None
        if status == _DROPPED:
            comparison.dropped += 1
        elif answered is None:
            comparison.failed += 1
        elif answer is None or len(answer.best) != len(answered.best):
            comparison.unpaired += 1
        else:
            comparison.pairs.append((answer, answered))
    return compared


def report(model: str, version: str, comparison: Comparison) -> Iterator[str]:
    """Yield lines for people."""
    pairs = comparison.pairs
    yield f"{model} {version} in the shadow: {comparison.copies} copies, {len(pairs)} compared"
    for count, reason in (
        (comparison.dropped, "dropped by the gateway, which keeps half of its places for others"),
        (comparison.failed, "without an answer of this version: its log says why"),
        (comparison.unpaired, "without an answer to compare with: an error, an id that was used twice, or a cut log"),
    ):
        if count:
            yield f"  {count} {reason}"
    images = [both for one, other in pairs for both in zip(one.best, other.best, strict=True)]
    if not images:
        return
    same = [both for both in images if both[0][0] == both[1][0]]
    low, high = wilson(len(same), len(images))
    share = 100 * len(same) / len(images)
    yield f"  same best label: {len(same)} of {len(images)} images, {share:.1f} % ({100 * low:.1f}-{100 * high:.1f})"
    sure, surer = (fmean(both[side][1] for both in images) for side in (0, 1))
    yield f"  its probability, on average: {sure:.3f} as served, {surer:.3f} in the shadow"
    before_ms, after_ms = (_milliseconds(both[side] for both in pairs) for side in (0, 1))
    yield f"  time of a request, median: {before_ms} as served, {after_ms} in the shadow"
    changes = Counter((a[0], b[0]) for a, b in images if a[0] != b[0])
    for (before, after), count in changes.most_common(_CHANGES):
        yield f"  {before} -> {after}: {count}"
    if len(changes) > _CHANGES:
        yield f"  and {len(changes) - _CHANGES} other changes"
    if few_images(len(images)):
        yield f"  only {len(images)} images: the interval is wide"


def _records(lines: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    for line in lines:
        if not line.startswith("{") or '"request_id"' not in line:
            continue
        try:
            record = json.loads(line)
        except ValueError:  # cut off, or mixed with another
            continue
        if isinstance(record, dict) and "request_id" in record:
            yield record


def _answered(record: Mapping[str, Any]) -> Answered | None:
    try:
        said = json.loads(record["prediction"])
        best = tuple((str(entry["label"]), float(entry["probability"])) for entry in said["best"])
        seconds = float(str(record["upstream_s"]).rpartition(",")[2].rpartition(":")[2])
        return Answered(str(said["version"]), best, seconds)
    except (KeyError, TypeError, ValueError):
        return None


def _milliseconds(answers: Iterable[Answered]) -> str:
    return f"{1000 * median(answer.seconds for answer in answers):.0f} ms"
