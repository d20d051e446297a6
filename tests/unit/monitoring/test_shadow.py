"""The summary of a version in the shadow: what was compared, what was not and why."""

import json
from pathlib import Path

import pytest

from monitoring.__main__ import main


def said(version: str, *best: tuple[str, float]) -> str:
    return json.dumps({"version": version, "best": [{"label": label, "probability": p} for label, p in best]})


def served(request: str, *best: tuple[str, float], seconds: str = "0.010") -> str:
    return json.dumps(
        {"request_id": request, "path": "/x", "status": 200, "upstream_s": seconds, "prediction": said("1.0", *best)}
    )


def copied(request: str, *best: tuple[str, float], path: str = "/predictions/mine/1.1", status: str = "200") -> str:
    prediction = said("1.1", *best) if best else ""
    return json.dumps(
        {"request_id": request, "shadow": path, "status": status, "upstream_s": "0.020", "prediction": prediction}
    )


def report(tmp_path: Path, capsys: pytest.CaptureFixture[str], *lines: str) -> str:
    (tmp_path / "gateway.log").write_text("\n".join(lines) + "\n")
    assert main(["shadow", "--log", str(tmp_path / "gateway.log")]) == 0
    return capsys.readouterr().out


def test_answers_are_compared_image_by_image_whichever_came_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = report(
        tmp_path,
        capsys,
        "Gateway at http://127.0.0.1:8000; Ctrl-C stops it.",
        served("a", ("rose", 0.9)),
        copied("a", ("rose", 0.7)),
        copied("b", ("tulip", 0.5), ("iris", 0.6), path="/v2/models/mine/versions/1.1/infer"),
        # nginx lists the servers that it asked.
        served("b", ("rose", 0.5), ("iris", 0.8), seconds="0.001, 0.030"),
        served("never copied", ("rose", 1.0)),
        '{"request_id":"cut',
    )
    assert "mine 1.1 in the shadow: 2 copies, 2 compared" in text
    assert "same best label: 2 of 3 images, 66.7 % (20.8-93.9)" in text
    assert "on average: 0.733 as served, 0.600 in the shadow" in text
    assert "median: 20 ms as served, 20 ms in the shadow" in text
    assert "rose -> tulip: 1" in text
    assert "only 3 images" in text


def test_what_could_not_be_compared_is_counted_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = report(
        tmp_path,
        capsys,
        copied("dropped", status="429"),
        copied("failed", status="500"),
        copied("error of the other", ("rose", 1.0)),
        *(served("twice", ("rose", 1.0)), served("twice", ("iris", 1.0)), copied("twice", ("rose", 1.0))),
        *(
            served("copied twice", ("rose", 1.0)),
            copied("copied twice", ("iris", 1.0)),
            copied("copied twice", ("rose", 1.0)),
        ),
    )
    assert "mine 1.1 in the shadow: 6 copies, 0 compared" in text
    assert "  1 dropped by the gateway" in text
    assert "  1 without an answer of this version" in text
    assert "  4 without an answer to compare with" in text
    assert "same best label" not in text


def test_a_log_without_copies_is_refused_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gateway.log").write_text(served("a", ("rose", 1.0)) + "\n")
    assert main(["shadow", "--log", str(tmp_path / "gateway.log")]) == 1
    assert "has no line of a copy" in capsys.readouterr().err
