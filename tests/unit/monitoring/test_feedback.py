"""What the page writes is what the reader reads."""

from pathlib import Path

import pytest

from monitoring import feedback
from ui.feedback import judge, record
from visionserve.client import Answer, ModelName, Prediction


def answer(request_id: str, label: str = "rose") -> Answer:
    return Answer((Prediction(label, 3, 0.9), Prediction("iris", 1, 0.1)), 0.2, ModelName("flowers", "1.0"), request_id)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Feedback as the page writes it: a right one, a corrected one, one that is only wrong, one changed mind."""
    path = tmp_path / "feedback.jsonl"
    for request_id, label in (("a", "rose"), ("b", "peony"), ("c", None), ("d", "peony"), ("d", "rose")):
        record(judge(answer(request_id), label), path)
    return path


def test_the_reader_understands_every_line_of_the_page(written: Path) -> None:
    result = feedback.read(written)
    assert result.skipped == 0
    assert [(entry.request_id, entry.label, entry.verdict) for entry in result.judgements] == [
        ("a", "rose", "right"),
        ("b", "peony", "wrong"),
        ("c", None, "wrong"),
        ("d", "rose", "right"),
    ]


def test_verdicts_are_counted_and_joined_with_the_log(written: Path) -> None:
    result = feedback.summarise(feedback.read(written), {"a": "rose", "b": "rose", "c": "peony", "other": "iris"})
    assert (result.right, result.wrong) == (2, 2)
    assert result.confused == (("rose", "peony", 1),)
    assert (result.joined, result.comparable, result.confirmed) == (3, 2, 1)


@pytest.mark.parametrize("line", ["{", "[1]", '"text"', '{"request_id": "a"}', '{"verdict": 3}', "\x00\x01"])
def test_a_line_that_is_cut_off_or_not_ours_is_counted_and_left_out(written: Path, line: str) -> None:
    with written.open("a") as file:
        file.write(line)
    result = feedback.read(written)
    assert len(result.judgements) == 4
    assert result.skipped == 1
