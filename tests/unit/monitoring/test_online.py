"""Online evaluation against a service that answers whatever the file says."""

import csv
import json
import os
import resource
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from monitoring.__main__ import main
from monitoring.online import labelled_images, prediction_log
from monitoring.online.offline import Offline
from monitoring.online.prediction_log import Entry, Start, Writer
from tests.unit.conftest import TinyBundle
from tests.unit.monitoring import fake_service
from visionserve.classifier import Classifier

LABELS = ("iris", "rose")


def write_images(root: Path, **names_and_answers: str) -> Path:
    """Write class folders: ``rose_1="rose 0.9"`` is image 1 of rose, answered rose with 0.9."""
    for name, answer in names_and_answers.items():
        label, number = name.split("_")
        (root / label).mkdir(parents=True, exist_ok=True)
        (root / label / f"{number}.jpg").write_text(answer)
    return root


def many(root: Path, count: int) -> Path:
    return write_images(root, **{f"rose_{number:03d}": f"rose 0.{90 + number % 9}" for number in range(count)})


def post(images: Path, url: str, folder: Path, *options: str) -> int:
    outputs = ["--log", str(folder / "log.jsonl"), "--report", str(folder / "reports")]
    return main(["evaluate", "--images", str(images), "--url", url, *outputs, *options])


def figures(folder: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((last_report(folder) / "metrics.json").read_text())
    return metrics


def last_report(folder: Path) -> Path:
    return max((folder / "reports").iterdir())


def test_the_report_counts_what_was_right_wrong_and_refused(tmp_path: Path) -> None:
    images = write_images(
        tmp_path / "in", rose_1="rose 0.9", rose_2="rose 0.8", rose_3="tulip 0.7", iris_1="rose 0.6", iris_2="broken"
    )
    with fake_service.running() as service:
        assert post(images, service.url, tmp_path) == 0
    report = figures(tmp_path)
    assert report["images"] == 5
    assert report["answered"] == 4
    assert report["rejected"] == {"unsupported_image": 1}
    assert report["top1"] == 0.5
    assert report["top5"] == 0.75  # iris is the second guess of iris/1
    assert report["top1_interval"] == pytest.approx([0.15, 0.85], abs=0.01)
    assert {row["label"]: row["accuracy"] for row in report["labels"]} == {
        "iris": 0,
        "rose": pytest.approx(2 / 3),
    }
    text = (last_report(tmp_path) / "report.md").read_text()
    assert "**50.0 % correct**" in text
    assert "| iris/1.jpg | iris | rose | 60.0 % |" in text
    assert (last_report(tmp_path) / "reliability.png").read_bytes().startswith(b"\x89PNG")
    with (last_report(tmp_path) / "mistakes.csv").open() as file:
        mistakes = list(csv.DictReader(file))
    assert [(row["path"], row["label"], row["predicted"], row["probability"]) for row in mistakes] == [
        ("rose/3.jpg", "rose", "tulip", "0.7"),
        ("iris/1.jpg", "iris", "rose", "0.6"),
    ]


def test_calibration_is_the_gap_between_stated_and_found(tmp_path: Path) -> None:
    images = write_images(tmp_path / "in", rose_1="rose 0.9", rose_2="rose 0.9", rose_3="iris 0.9", rose_4="iris 0.9")
    with fake_service.running() as service:
        post(images, service.url, tmp_path)
    assert figures(tmp_path)["calibration_error"] == pytest.approx(0.4)


def test_the_log_has_no_content_and_no_file_names(tmp_path: Path) -> None:
    images = write_images(tmp_path / "in", rose_mrsSmith="rose 0.875")
    with fake_service.running() as service:
        post(images, service.url, tmp_path)
    text = (tmp_path / "log.jsonl").read_text()
    assert "mrsSmith" not in text
    (entry,) = prediction_log.read(tmp_path / "log.jsonl").images
    assert (entry.label, entry.prediction, entry.probability, entry.status) == ("rose", "rose", 0.875, 200)
    assert entry.timings == {"decode": 0.0015, "inference": 0.0025, "total": 0.005}
    assert entry.request_id
    assert entry.latency_s is not None
    assert entry.latency_s > 0


def test_an_unreadable_file_is_listed_and_the_rest_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = write_images(tmp_path / "in", rose_1="rose 0.9")
    (images / "rose" / "2.jpg").symlink_to(tmp_path / "gone.jpg")
    os.mkfifo(images / "rose" / "3.jpg")  # whoever reads it waits for a writer
    with fake_service.running() as service:
        assert post(images, service.url, tmp_path) == 0
    assert figures(tmp_path)["unreadable"] == 2
    output = capsys.readouterr().err
    assert "rose/2.jpg: unreadable" in output
    assert "rose/3.jpg: unreadable" in output


def test_no_service_is_one_sentence_and_exit_code_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = many(tmp_path / "in", 3)
    assert post(images, "http://127.0.0.1:1", tmp_path) == 3
    output = capsys.readouterr().err
    assert "http://127.0.0.1:1" in output
    assert output.count("\n") == 1


def test_a_run_goes_on_where_the_service_went_away(tmp_path: Path) -> None:
    images = many(tmp_path / "in", 20)
    with fake_service.running(patience=8) as service:
        assert post(images, service.url, tmp_path) == 3
        done = prediction_log.read(tmp_path / "log.jsonl").images
        assert len(done) == 8
        service.patience, before = None, len(service.bodies)
        assert post(images, service.url, tmp_path) == 0
        assert len(service.bodies) - before == 12
    log = prediction_log.read(tmp_path / "log.jsonl")
    assert len({entry.image for entry in log.images}) == len(log.images) == 20
    assert len({entry.run for entry in log.images}) == 1
    assert figures(tmp_path)["answered"] == 20


def test_a_complete_run_is_followed_by_a_new_one(tmp_path: Path) -> None:
    images = many(tmp_path / "in", 3)
    with fake_service.running() as service:
        assert post(images, service.url, tmp_path) == post(images, service.url, tmp_path) == 0
    log = prediction_log.read(tmp_path / "log.jsonl")
    assert len(log.starts) == len(log.ended) == 2
    assert figures(tmp_path)["images"] == 3


def test_a_second_run_keeps_the_report_of_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = many(tmp_path / "in", 3)
    with fake_service.running() as service:
        post(images, service.url, tmp_path)
        before = {path: path.read_bytes() for path in (tmp_path / "reports").rglob("*") if path.is_file()}
        post(images, service.url, tmp_path)
    assert len(before) == 5
    assert {path: path.read_bytes() for path in before} == before
    printed = [line for line in capsys.readouterr().out.splitlines() if line.endswith("report.md")]
    assert len(set(printed)) == 2
    assert all(Path(line).is_file() for line in printed)


def test_a_retry_is_logged_and_its_wait_is_no_latency(tmp_path: Path) -> None:
    """A service that answers 503 with Retry-After twice, then at once: the image waited, the service did not."""
    images = write_images(tmp_path / "in", rose_1="rose 0.9")
    with fake_service.running(busy=2) as service:
        assert post(images, service.url, tmp_path) == 0
    (entry,) = prediction_log.read(tmp_path / "log.jsonl").images
    assert entry.attempts == 3
    assert entry.latency_s is not None
    assert entry.latency_s < 0.9  # each Retry-After asked for a second
    assert (figures(tmp_path)["retried"], figures(tmp_path)["attempts"]) == (1, 3)
    assert "| sent again | 1 images, 3 requests in all |" in (last_report(tmp_path) / "report.md").read_text()


def test_versions_are_reported_apart_and_only_the_cards_is_compared(
    tiny: TinyBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A roll-out in the middle of a run: neither version's accuracy hides in the other's."""
    images = write_images(tmp_path / "in", **{f"circle_{number:02d}": "circle 0.9" for number in range(40)})
    with fake_service.running(model="shapes", versions=("0.9", "1.0")) as service:
        assert post(images, service.url, tmp_path, "--bundle", str(tiny.directory), "--model", "shapes") == 0
    assert sorted(path.name for path in last_report(tmp_path).iterdir()) == ["shapes-0.9", "shapes-1.0"]
    output = capsys.readouterr().out
    assert "shapes 0.9: 100.0 % correct of 20 images" in output
    assert "; not compared: the bundle's card is of shapes 1.0." in output


def test_labels_that_the_model_does_not_have_are_named(
    tiny: TinyBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = write_images(tmp_path / "in", circle_1="circle 0.9", puppies_1="circle 0.9", puppies_2="circle 0.9")
    with fake_service.running(model="shapes", versions=("1.0",)) as service:
        assert post(images, service.url, tmp_path, "--bundle", str(tiny.directory), "--model", "shapes") == 0
    assert "shapes 1.0 has no label puppies (2): 2 of 3 images do not count in its accuracy." in capsys.readouterr().err
    assert figures(tmp_path)["judged"] == 1


def test_a_report_inside_the_images_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = many(tmp_path / "in", 3)
    assert post(images, "http://127.0.0.1:1", images) == 1
    assert "whose images are posted: choose another folder" in capsys.readouterr().err


def test_to_compare_needs_a_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert post(many(tmp_path / "in", 3), "http://127.0.0.1:1", tmp_path, "--compare") == 1
    assert "name it with --bundle" in capsys.readouterr().err


def test_a_line_cut_off_by_a_kill_is_left_out_and_nothing_else_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    entry = Entry("run", "now", "digest", "rose", 200, best=(("rose", 0.5),))
    with Writer(path) as writer:
        writer.start(Start("run", "now", "url", "images"))
        writer.image(entry)
        writer.image(entry)
    path.write_bytes(path.read_bytes()[:-20])
    with Writer(path) as writer:
        writer.image(entry)
    log = prediction_log.read(path)
    assert log.images == (entry, entry)
    assert log.skipped == 1
    assert log.unfinished("url", "images") == "run"
    assert log.unfinished("url", "others") is None


@pytest.mark.parametrize("line", [b"[]", b"7", b'{"event":"image"}', b'{"event":"other"}', b"\xff\xfe", b"{"])
def test_a_line_that_is_not_ours_is_counted_and_left_out(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "log.jsonl").write_bytes(line + b"\n")
    assert prediction_log.read(tmp_path / "log.jsonl") == prediction_log.Log((), (), frozenset(), 1)


def test_a_manifest_is_posted_split_by_split_with_labels_renamed(tmp_path: Path) -> None:
    write_images(tmp_path / "in", daisy_1="oxeye daisy 0.9", daisy_2="oxeye daisy 0.9", rose_1="rose 0.9")
    (tmp_path / "list.csv").write_text(
        "path,label,split\ndaisy/1.jpg,daisy,test\ndaisy/2.jpg,daisy,train\nrose/1.jpg,rose,test\n"
    )
    with fake_service.running() as service:
        root = ["--root", str(tmp_path / "in")]
        assert post(tmp_path / "list.csv", service.url, tmp_path, *root, "--rename", "daisy=oxeye daisy") == 0
    assert figures(tmp_path)["images"] == 2
    assert figures(tmp_path)["top1"] == 1


def test_a_folder_with_a_labels_csv_is_posted_with_every_right_label_and_an_interval_by_source(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    answers = {"1": "rose 0.9", "2": "peony 0.9", "3": "iris 0.8", "4": "rose 0.6"}
    for name, answer in answers.items():
        (root / f"{name}.jpg").write_text(answer)
    lines = ["1.jpg,rose,,a", "2,rose,peony,a", "3.jpg,iris,,b", "4.jpg,iris,,b"]
    (root / "labels.csv").write_text("\n".join(["file,label,accept,source", *lines]) + "\n")
    found = []
    for images in (root, root / "labels.csv"):
        with fake_service.running() as service:
            assert post(images, service.url, tmp_path) == 0
        report = figures(tmp_path)
        found.append([report[name] for name in ("images", "top1", "groups")])
    assert found == [[4, 0.75, 2]] * 2
    assert figures(tmp_path)["top1_interval"][0] < 0.1  # two sources, alike within, say next to nothing about a third
    assert report["confusions"] == [{"label": "iris", "predicted": "rose", "count": 1}]
    assert "of other groups than these 2" in (last_report(tmp_path) / "report.md").read_text()
    assert [entry.accept for entry in prediction_log.read(tmp_path / "log.jsonl").images if entry.accept]


def test_positions_of_a_labels_csv_count_in_the_models_labels(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_text("")
    (tmp_path / "2.jpg").write_text("")
    (tmp_path / "labels.csv").write_text("file;index;label;accept\n1;1;rose;0\n2;;tulip;\n")
    images = labelled_images.collect(tmp_path, None, "test", None, LABELS)
    assert {(image.label, image.accept) for image in images} == {("rose", ("iris",)), ("tulip", ())}


def test_a_bundles_manifest_of_a_further_source_has_groups_and_further_right_labels(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(
        "path,label,split,sha256,accept,group\na.jpg,rose,test,0,iris;peony,site\nb.jpg,rose,train,0,,site\n"
    )
    (image,) = labelled_images.collect(tmp_path / "list.csv", None, "test", None)
    assert (image.label, image.accept, image.group) == ("rose", ("iris", "peony"), "site")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: path.mkdir(), "no labelled images"),
        (lambda path: path.write_text("a,b\n1,2\n"), "columns file and label, or path and label"),
        (Path.resolve, "neither a folder nor a CSV file"),
    ],
    ids=["an empty folder", "a CSV file of something else", "nothing"],
)
def test_images_that_cannot_be_posted_are_one_sentence(
    tmp_path: Path, make: object, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "in")  # type: ignore[operator]
    assert post(tmp_path / "in", "http://127.0.0.1:1", tmp_path) == 1
    assert sentence in capsys.readouterr().err


def test_a_full_disk_is_one_sentence_and_loses_no_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = many(tmp_path / "in", 6)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with fake_service.running() as service:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            assert post(images, service.url, tmp_path) == 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        output = capsys.readouterr().err
        done = len(prediction_log.read(tmp_path / "log.jsonl").images)
        assert 1 <= done < 6
        assert output.startswith("python -m monitoring evaluate: ")
        assert output.count("\n") == 1
        assert post(images, service.url, tmp_path) == 0
    log = prediction_log.read(tmp_path / "log.jsonl")
    assert (len(log.images), log.skipped) == (6, 1)


def test_prometheus_gets_the_accuracy_in_a_text_file(tmp_path: Path) -> None:
    images = write_images(tmp_path / "in", rose_1="rose 0.9", iris_1="rose 0.9")
    with fake_service.running() as service:
        post(images, service.url, tmp_path, "--textfile", str(tmp_path / "live.prom"))
    lines = (tmp_path / "live.prom").read_text().splitlines()
    assert 'visionserve_live_accuracy{model="flowers",version="1.0"} 0.5' in lines
    assert 'visionserve_live_images{model="flowers",outcome="answered",version="1.0"} 2.0' in lines
    assert sum(line.startswith("# TYPE visionserve_live_accuracy ") for line in lines) == 1
    assert [path.name for path in tmp_path.glob("live.prom*")] == ["live.prom"]


def test_feedback_is_reported_apart_and_its_bias_said(tmp_path: Path) -> None:
    images = write_images(tmp_path / "in", rose_1="rose 0.9")
    with fake_service.running() as service:
        post(images, service.url, tmp_path)
        (entry,) = prediction_log.read(tmp_path / "log.jsonl").images
        output: list[dict[str, object]] = [
            {"request_id": entry.request_id, "predicted": "rose", "label": "rose", "verdict": "right"},
            {"request_id": "from-the-page", "predicted": "rose", "label": "peony", "verdict": "wrong"},
        ]
        usual: dict[str, object] = {
            "time": "2026-11-21T09:00:00Z",
            "model": "flowers",
            "version": "1.0",
            "probability": 0.9,
        }
        lines = [json.dumps(usual | one) for one in output]
        (tmp_path / "feedback.jsonl").write_text("\n".join([*lines, '{"time": "2026-']))
        post(images, service.url, tmp_path, "--feedback", str(tmp_path / "feedback.jsonl"))
    text = (last_report(tmp_path) / "report.md").read_text()
    assert "1 answers were judged right, 1 wrong. Users choose which answers they judge" in text
    assert "1 of them are requests of the prediction log; its label agrees with 1 of the 1" in text
    assert "| rose | peony | 1 |" in text
    assert figures(tmp_path)["top1"] == 1


def test_images_that_are_gone_or_broken_by_the_comparison_are_counted_apart(tiny: TinyBundle, tmp_path: Path) -> None:
    labels = Classifier.load(tiny.directory).card.labels
    files = {name: tmp_path / f"{name}.png" for name in ("whole", "broken", "gone")}
    Image.new("RGB", (40, 30), (200, 30, 60)).save(files["whole"])
    files["broken"].write_bytes(b"overwritten meanwhile")
    entries = [
        Entry("run", "2026-11-29T08:00:00", name, labels[0], 200, best=((labels[0], 0.5),), novelty=0.5)
        for name in files
    ]
    agreement = Offline(tiny.directory).compare(entries, files)
    assert (agreement.images, agreement.labelled, agreement.unreadable) == (1, 1, 2)
