import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ui import feedback
from visionserve.client import Answer, ModelName, Prediction

ANSWER = Answer(
    (Prediction("rose", 73, 0.91), Prediction("sweet pea", 3, 0.05)), 0.2, ModelName("flowers", "1.0"), "request-7"
)
NOON = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_a_line_says_who_answered_what_and_what_the_person_says_and_nothing_of_the_image(tmp_path: Path) -> None:
    path = tmp_path / "new" / "feedback.jsonl"
    feedback.record(feedback.judge(ANSWER, "sweet pea", NOON), path)
    assert [json.loads(line) for line in lines(path)] == [
        {
            "time": "2026-11-21T12:00:00Z",
            "request_id": "request-7",
            "model": "flowers",
            "version": "1.0",
            "predicted": "rose",
            "probability": 0.91,
            "label": "sweet pea",
            "verdict": "wrong",
            "image": None,
        }
    ]


@pytest.mark.parametrize(
    ("label", "verdict"),
    [("rose", "right"), ("sweet pea", "wrong"), (None, "wrong")],
    ids=["right", "other", "unknown"],
)
def test_the_verdict_follows_from_the_label(label: str | None, verdict: str) -> None:
    judged = feedback.judge(ANSWER, label, NOON)
    assert (judged.label, judged.verdict) == (label, verdict)


def test_a_half_written_last_line_stays_alone(tmp_path: Path) -> None:
    path = tmp_path / "feedback.jsonl"
    judged = feedback.judge(ANSWER, "rose", NOON)
    feedback.record(judged, path)
    with path.open("a") as stream:
        stream.write('{"time": "2026-11-2')
    feedback.record(judged, path)
    first, half, last = lines(path)
    assert json.loads(first) == json.loads(last) == asdict(judged)
    assert half == '{"time": "2026-11-2'


def test_many_writers_at_once_lose_and_mix_nothing(tmp_path: Path) -> None:
    path = tmp_path / "feedback.jsonl"
    judged = [replace(feedback.judge(ANSWER, "rose", NOON), request_id=f"id-{n}" * 200) for n in range(64)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda one: feedback.record(one, path), judged))
    assert {json.loads(line)["request_id"] for line in lines(path)} == {one.request_id for one in judged}


def test_names_beyond_ascii_are_kept_readable(tmp_path: Path) -> None:
    path = tmp_path / "feedback.jsonl"
    feedback.record(feedback.judge(ANSWER, "Männertreu", NOON), path)
    assert "Männertreu" in path.read_text(encoding="utf-8")


def test_a_place_that_cannot_be_written_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="exists"):
        feedback.record(feedback.judge(ANSWER, "rose", NOON), tmp_path / "file" / "feedback.jsonl")
