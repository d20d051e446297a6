"""The evaluation report: its sections, its files, and data at the edges."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from safetensors.torch import save_file

from tests.unit.conftest import INPUT, LABELS, TinyBundle
from tests.unit.training import synthetic_images
from training.__main__ import main
from training.data.manifest import Manifest, Row, hash_file
from training.evaluation.calibration import probabilities
from training.evaluation.evaluate import EvaluationData, Predictions, Validation
from training.evaluation.report import risk_coverage
from training.evaluation.report import write as report
from training.evaluation.report.sections import Plot, Section
from training.markdown import table
from visionserve.classifier import Classifier
from visionserve.engines import Outputs
from visionserve.model_card import Device, ModelCard
from visionserve.novelty import Reference

PHOTOGRAPHS = {"confused_pairs", "heatmaps_right", "heatmaps_wrong"}
FIGURES = {"labels", "confusion", "reliability", "coverage"}


class Engine:
    """Answers anything with the same class maps; the logits are given."""

    device: Device = "cpu"
    name = "a fake"

    def __init__(self, classes: int) -> None:
        self._classes = classes

    def run(self, images: np.ndarray) -> Outputs:
        maps = np.tile(np.linspace(-1, 1, 9, dtype=np.float32).reshape(3, 3), (len(images), self._classes, 1, 1))
        return Outputs(maps.mean((2, 3)), maps, np.zeros((len(images), 2), np.float32))


def data(root: Path, labels: Sequence[str], targets: Sequence[int], predicted: Sequence[int]) -> EvaluationData:
    """Images with a true and a predicted label index each, as a bundle would have answered."""
    classes, count = len(labels), len(targets)
    card = ModelCard("drawn", "1.0", "resnet18", tuple(labels), INPUT, temperature=0.8)
    reference = Reference(np.zeros((classes, 2), np.float32), np.eye(2, dtype=np.float32), np.ones(3, np.float32))
    logits = np.random.default_rng(0).normal(size=(count, classes)) + 5 * np.eye(classes)[list(predicted)]
    rows = []
    for index, target in enumerate(targets):
        synthetic_images.image((40 * target % 256, 90, 40), index).save(root / f"{index}.png")
        rows.append(Row(f"{index}.png", labels[target], "test", hash_file(root / f"{index}.png")))
    return EvaluationData(
        bundle=root,
        classifier=Classifier(card, Engine(classes), reference),
        manifest=Manifest(root, card.labels, tuple(rows)),
        split="test",
        files=tuple(root / row.path for row in rows),
        images=np.random.default_rng(1).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8),
        targets=np.array(targets),
        predictions=Predictions(logits, np.full(count, 0.5)),
        fp32_logits=logits + 0.01,
    )


def written(folder: Path, found: EvaluationData) -> tuple[str, dict[str, object], set[str]]:
    """Write a report; return its text, its figures and the names of its plots."""
    report.write(folder, found, report.all_sections(found))
    figures = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return (folder / "report.md").read_text(encoding="utf-8"), figures, {p.stem for p in folder.glob("plots/*.png")}


def test_a_report_has_every_section_and_every_picture_that_it_names(tmp_path: Path) -> None:
    found = data(tmp_path, ("a", "b", "c"), [0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 2, 0])
    text, figures, plots = written(tmp_path / "report", found)
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == [
        "Accuracy",
        "Labels",
        "Confusions",
        "Calibration",
        "Accuracy at coverage",
        "As served beside fp32",
        "Heatmaps",
    ]
    assert text.startswith("# drawn 1.0 on 6 test images\n")
    assert plots == PHOTOGRAPHS | FIGURES
    assert set(re.findall(r"\]\(plots/(\w+)\.png\)", text)) == plots
    assert {"served", "fp32", "labels", "confusions", "worst_pairs", "coverage", "comparison"} <= set(figures)
    assert "66.67 %" in text


def test_the_worst_pairs_come_with_their_photographs(tmp_path: Path) -> None:
    found = data(tmp_path, ("a", "b", "c"), [0, 0, 0, 1, 2], [1, 1, 0, 1, 0])
    pairs = report.figures(found, report.all_sections(found))["worst_pairs"]
    assert [(pair["label"], pair["predicted"], pair["times"], pair["of"], pair["files"]) for pair in pairs] == [
        ("a", "b", 2, 3, ["0.png", "1.png"]),
        ("c", "a", 1, 1, ["4.png"]),
    ]


def test_photographs_stay_out_of_a_bundle(tmp_path: Path) -> None:
    found = data(tmp_path, ("a", "b", "c"), [0, 1, 2], [0, 1, 0])
    report.write(tmp_path / "bundle", found, report.all_sections(found), photographs=False)
    text = (tmp_path / "bundle" / "report.md").read_text(encoding="utf-8")
    assert {path.stem for path in (tmp_path / "bundle" / "plots").iterdir()} == FIGURES
    assert not any(name in text for name in PHOTOGRAPHS)


@pytest.mark.parametrize(
    ("labels", "targets", "predicted"),
    [
        pytest.param("ab", [0, 0, 1], [0, 1, 1], id="two labels"),
        pytest.param("abcdefg", range(7), [0, 1, 2, 3, 4, 5, 0], id="one photograph of each label"),
        pytest.param("abcdefg", [0, 0, 2], [0, 6, 2], id="labels without photographs"),
        pytest.param("abc", [0, 1, 2], [0, 1, 2], id="no mistake"),
        pytest.param("abc", [0, 1, 2], [1, 2, 0], id="nothing right"),
        pytest.param("abc", [1], [1], id="one photograph"),
        pytest.param(["a|b", "a very long name of a label, longer than a line of a sheet", "ü"], [0, 1], [1, 0]),
    ],
)
def test_reports_are_written_at_the_edges(
    tmp_path: Path, labels: Sequence[str], targets: Sequence[int], predicted: Sequence[int]
) -> None:
    text, _, plots = written(tmp_path / "report", data(tmp_path, labels, targets, predicted))
    assert set(re.findall(r"\]\(plots/(\w+)\.png\)", text)) == plots
    assert "nan" not in text


def test_thresholds_are_chosen_on_validation_and_measured_on_the_split(tmp_path: Path) -> None:
    measured = data(tmp_path, ("a", "b"), [0, 0, 1, 1], [0, 1, 1, 1])
    confident = np.array([[4.0, 0.0], [3.0, 0.0], [2.0, 0.0], [1.0, 0.0]])
    validation = Validation(Predictions(confident, np.zeros(4)), np.zeros(4, int))
    figures = risk_coverage.section(replace(measured, validation=validation)).figures
    lowest = float(probabilities(confident, 0.8).max(1).min())
    assert figures["thresholds_chosen_on"] == "val"
    assert figures["rows"][0]["threshold"] == pytest.approx(lowest, abs=1e-4)
    assert figures["rows"][0]["threshold"] <= lowest, "the image at the boundary reaches the stated threshold"
    assert "optimistic" in risk_coverage.section(measured).lines[0]


def test_few_images_come_with_a_warning_and_with_intervals_that_are_not_empty(tmp_path: Path) -> None:
    text, figures, _ = written(tmp_path / "report", data(tmp_path, "abcd", [0, 1, 2, 3] * 3, [0, 1, 2, 3] * 3))
    assert "Only 12 images" in text
    served = figures["served"]
    assert isinstance(served, dict)
    assert (served["top1"], served["intervals"]["top1"]) == (1.0, [0.7575, 1.0])


def test_a_section_is_written_under_its_key_and_its_headline_goes_into_the_card(tmp_path: Path) -> None:
    found = data(tmp_path, ("a", "b"), [0, 1], [0, 1])
    own = Section("Weather", ["Rain."], {"mm": 3}, "weather", [Plot("rain", Figure(), "Drops")], {"rain": 3})
    report.write(tmp_path / "report", found, [own])
    assert report.figures(found, [own])["weather"] == {"mm": 3}
    assert report.headline(found, [own]) == {"split": "test", "rain": 3}
    assert "## Weather\n\nRain.\n\n![Drops](plots/rain.png)" in (tmp_path / "report" / "report.md").read_text()


def test_a_bar_in_a_label_stays_in_its_cell() -> None:
    assert table(["a"], [["x|y"]])[2] == "| x\\|y |"


@pytest.fixture
def bundle(tiny: TinyBundle, tmp_path: Path) -> Path:
    """A bundle whose manifest has two test photographs of one label, one of another, and none of the third."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name in ("card.json", "model.int8.onnx", "reference.safetensors"):
        (folder / name).write_bytes((tiny.directory / name).read_bytes())
    save_file(tiny.network.state_dict(), folder / "weights.safetensors")
    rows = []
    for place, label in enumerate([LABELS[0], LABELS[0], LABELS[2]]):
        synthetic_images.image((90, 80 * place, 40), place).save(tmp_path / f"{place}.png")
        rows.append(Row(f"{place}.png", label, "test", hash_file(tmp_path / f"{place}.png")))
    Manifest(tmp_path, LABELS, tuple(rows)).save(folder / "manifest.csv")
    return folder


def test_update_writes_report_and_figures_into_the_bundle_and_leaves_the_rest(bundle: Path, tmp_path: Path) -> None:
    before = ModelCard.load(bundle / "card.json")
    replace(before, metrics={"an": "older entry"}).save(bundle / "card.json")
    (bundle / "plots").mkdir()
    (bundle / "plots" / "older.png").touch()
    assert main(["evaluate", "--bundle", str(bundle), "--data.root", str(tmp_path), "--update"]) == 0
    card = ModelCard.load(bundle / "card.json")
    figures = json.loads((bundle / "metrics.json").read_text(encoding="utf-8"))
    assert replace(card, metrics={}) == replace(before, metrics={})
    assert {"photographs", "top1", "top1_interval", "top5", "calibration_error", "reliability"} <= set(card.metrics)
    assert {"macro_f1", "intervals", "negative_log_likelihood", "coverage", "top1_fp32"} <= set(card.metrics)
    assert "an" not in card.metrics
    assert card.metrics["macro_f1"] == figures["served"]["macro_f1"]
    assert not (PHOTOGRAPHS | {"older"}) & {path.stem for path in (bundle / "plots").iterdir()}
    assert "3 test images" in (bundle / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--split", "val"], "the manifest has no val images: choose another --split"),
        (["--split", "val", "--update"], "a bundle's own figures are those of its test split"),
        (["--bundle", "nowhere"], "cannot read the model card nowhere"),
    ],
)
def test_what_cannot_be_evaluated_is_said_in_a_sentence(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], sentence: str
) -> None:
    assert main(["evaluate", "--bundle", str(bundle), "--data.root", str(tmp_path), *options]) == 1
    assert sentence in capsys.readouterr().err


def test_a_photograph_that_has_gone_is_said_in_a_sentence(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "1.png").unlink()
    for changed in ([], ["--changed"]):
        assert main(["evaluate", "--bundle", str(bundle), "--data.root", str(tmp_path), *changed]) == 1
        assert "1.png" in capsys.readouterr().err
