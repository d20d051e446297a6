"""Feedback and mistakes become a list for a person, and its accepted images training data; the rest has reasons."""

import csv
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monitoring.__main__ import main
from tests.unit.training.data.test_growth import folder, scene
from training.__main__ import main as training
from training.data import manifest as manifests
from training.data import review_list
from training.data.datasets import collect
from training.data.manifest import hash_file
from ui.feedback import judge, record
from ui.kept_images import KeptImages
from ui.predictions import ImageFile
from visionserve.client import Answer, ModelName, Prediction

MISTAKES = "path,label,predicted,probability,novelty,request_id\n"


def encoded(seed: int, tmp_path: Path) -> bytes:
    path = tmp_path / "encoded.png"
    scene(seed).save(path)
    return path.read_bytes()


def say(tmp_path: Path, request_id: str, label: str | None, seed: int | None) -> str | None:
    """Judge an answer "cat" as the page does; the image is kept unless ``seed`` is None."""
    answer = Answer((Prediction("cat", 0, 0.9), Prediction("dog", 1, 0.1)), 0.2, ModelName("pets", "1.0"), request_id)
    name = None
    if seed is not None:
        name = KeptImages(str(tmp_path / "kept")).keep(ImageFile("x.png", encoded(seed, tmp_path)))
    record(judge(answer, label, image=name), tmp_path / "feedback.jsonl")
    return name


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def listed(tmp_path: Path, *options: str) -> list[review_list.Entry]:
    assert main(["corrections", "--output", str(tmp_path / "review"), *options]) == 0
    return review_list.read(tmp_path / "review" / "review.csv")


def feedback_options(tmp_path: Path) -> list[str]:
    return ["--feedback", str(tmp_path / "feedback.jsonl"), "--kept", str(tmp_path / "kept")]


def test_wrong_predictions_whose_image_was_kept_are_listed_and_the_others_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    say(tmp_path, "a", "dog", 501)
    say(tmp_path, "b", None, 502)
    say(tmp_path, "c", "cat", 503)
    say(tmp_path, "d", "dog", None)
    gone = say(tmp_path, "e", "dog", 504)
    (tmp_path / "kept" / str(gone)).unlink()
    damaged = say(tmp_path, "f", "dog", 505)
    (tmp_path / "kept" / str(damaged)).write_bytes(b"half")
    with (tmp_path / "feedback.jsonl").open("a") as file:
        file.write("half a line")
    entries = listed(tmp_path, *feedback_options(tmp_path))
    assert [(e.label, e.use, e.predicted, e.origin, e.request_id) for e in entries] == [
        ("dog", "", "cat", "feedback", "a"),
        ("", "", "cat", "feedback", "b"),
    ]
    for entry, seed in zip(entries, (501, 502), strict=True):
        assert (tmp_path / "review" / entry.file).read_bytes() == encoded(seed, tmp_path)
        assert entry.sha256 == hash_file(tmp_path / "review" / entry.file)
    output = capsys.readouterr().out
    for reason in ("--confirmed", "did not let it be kept", "retention time is over", "is damaged", "cannot be read"):
        assert f"left out 1: {next(line for line in output.splitlines() if reason in line)[12:]}" in output
    assert (tmp_path / "review" / "review.html").read_text().count("<img") == 2
    assert len(listed(tmp_path, *feedback_options(tmp_path), "--confirmed")) == 3


def test_a_line_that_leads_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    say(tmp_path, "a", "dog", 501)
    path = tmp_path / "feedback.jsonl"
    (tmp_path / "secret.png").write_bytes(b"secret")
    with path.open("a") as file:
        file.write(path.read_text().replace('"a"', '"b"').replace('"image": "', '"image": "../'))
    assert [entry.request_id for entry in listed(tmp_path, *feedback_options(tmp_path))] == ["a"]


def test_decisions_stay_when_the_command_runs_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    say(tmp_path, "a", "dog", 501)
    [entry] = listed(tmp_path, *feedback_options(tmp_path))
    path = tmp_path / "review" / "review.csv"
    path.write_text(path.read_text().replace(f"{entry.file},,dog", f"{entry.file},yes,cat"))
    say(tmp_path, "b", "dog", 502)
    first, second = listed(tmp_path, *feedback_options(tmp_path))
    assert (first.use, first.label) == ("yes", "cat")
    assert (second.use, second.label) == ("", "dog")
    assert "is in the list since an earlier start" in capsys.readouterr().out


def test_mistakes_are_listed_with_their_images_and_those_of_the_model_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = folder(tmp_path / "live", count=3, first=700)
    rows = "".join(f"cat/{n}.png,cat,dog,0.8,0.5,r{n}\n" for n in (700, 701, 799))
    (tmp_path / "mistakes.csv").write_text(MISTAKES + rows)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "manifest.csv").write_text(
        f"path,label,split,sha256\nx.png,cat,test,{hash_file(root / 'cat' / '700.png')}\n"
    )
    options = ["--mistakes", str(tmp_path / "mistakes.csv"), "--root", str(root), "--bundle", str(bundle)]
    [entry] = listed(tmp_path, *options)
    assert (entry.label, entry.predicted, entry.origin, entry.request_id) == ("cat", "dog", "evaluation", "r701")
    output = capsys.readouterr().out
    assert "left out 1: a test image of the model already" in output
    assert "left out 1: a mistake whose image is not below" in output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--feedback FILE, --mistakes FILE"),
        (["--mistakes", "missing.csv"], "cannot be read"),
        (["--feedback", "missing.jsonl"], "nobody has judged an answer on the page yet (leave --feedback out)"),
        (["--mistakes", "mistakes.csv"], "--root names the folder"),
        (["--mistakes", "other.csv", "--root", "."], "is not a list of mistakes"),
        (["--feedback", "feedback.jsonl", "--kept", "nonsense://x"], "package that is not installed"),
    ],
)
def test_what_is_missing_is_said_in_a_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: Sequence[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mistakes.csv").write_text(MISTAKES + "a.png,cat,dog,0.8,0.5,r\n")
    Path("other.csv").write_text("a,b\n1,2\n")
    say(tmp_path, "a", "dog", 501)
    assert main(["corrections", *options]) == 1
    assert message in capsys.readouterr().err


def test_a_correction_given_on_the_page_ends_in_the_training_split_of_a_grown_manifest(tmp_path: Path) -> None:
    root, old, new = folder(tmp_path / "images"), tmp_path / "old.csv", tmp_path / "new.csv"
    manifests.build(collect("imagefolder", root), "stratified", 1).save(old)
    rows = {row["path"]: row for row in table(old)}
    tested = next(path for path, row in rows.items() if row["split"] == "test" and row["label"] == "cat")
    say(tmp_path, "a", "dog", 501)
    smaller = np.asarray(Image.open(root / tested).resize((48, 48)))
    Image.fromarray(smaller).save(tmp_path / "smaller.png")
    copy = ImageFile("copy.png", (tmp_path / "smaller.png").read_bytes())
    answer = Answer((Prediction("dog", 1, 0.9),), 0.2, ModelName("pets", "1.0"), "b")
    record(judge(answer, "cat", image=KeptImages(str(tmp_path / "kept")).keep(copy)), tmp_path / "feedback.jsonl")

    entries = listed(tmp_path, *feedback_options(tmp_path))
    assert [entry.label for entry in entries] == ["dog", "cat"]
    path = tmp_path / "review" / "review.csv"
    review_list.write(path.parent, [review_list.Entry(**{**vars(entry), "use": "yes"}) for entry in entries])
    options = ["--data.source", "imagefolder", "--data.root", str(root), "--data.manifest", str(old)]
    options += ["--cache", str(tmp_path / "cache"), "--output", str(new), "--reviewed", str(path)]
    assert training(["data", "add", *options]) == 0
    grown = {row["path"]: row for row in table(new)}
    assert {path: grown[path] for path in rows} == rows
    [added] = [row for path, row in grown.items() if path not in rows]
    assert (added["label"], added["split"], added["sha256"]) == ("dog", "train", entries[0].sha256)
    [left_out] = table(tmp_path / "left-out.csv")
    assert left_out["path"] == entries[1].file
    assert left_out["reason"] == f"looks like a test image, {tested}"


@pytest.mark.filterwarnings("default")  # of the libraries of others
def test_images_that_are_kept_in_a_bucket_are_listed_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an environment of its own, since s3fs lowers python-dateutil: pip install s3fs 'moto[s3]' flask flask-cors."""
    reason = "s3fs or moto is not installed: tests/unit/monitoring/test_corrections.py says how to run this"
    server = pytest.importorskip("moto.server", reason=reason).ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    s3fs = pytest.importorskip("s3fs", reason=reason)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in (("ENDPOINT_URL", f"http://{host}:{port}"), ("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "x")):
        monkeypatch.setenv(f"AWS_{name}", value)
    try:
        s3fs.S3FileSystem().mkdir("bucket")
        data, kept = encoded(501, tmp_path), KeptImages("s3://bucket/feedback", days=1)
        assert kept.expire() == 0, "nothing has been kept yet"
        name = kept.keep(ImageFile("x.png", data))
        answer = Answer((Prediction("cat", 0, 0.9), Prediction("dog", 1, 0.1)), 0.2, ModelName("pets", "1.0"), "a")
        record(judge(answer, "dog", image=name), tmp_path / "feedback.jsonl")
        options = ["--feedback", str(tmp_path / "feedback.jsonl"), "--kept", kept.address]
        (entry,) = listed(tmp_path, *options)
        assert (tmp_path / "review" / entry.file).read_bytes() == data
        assert kept.expire(datetime.now(UTC) + timedelta(days=1)) == 1
        assert not s3fs.S3FileSystem().exists(f"bucket/feedback/{name}")
    finally:
        server.stop()
