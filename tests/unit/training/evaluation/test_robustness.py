"""Corrupted photographs, photographs from elsewhere and photographs of other things, with a model that sees colours."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tests.unit.training.synthetic_images import image
from training.__main__ import main
from training.data.manifest import Manifest, Row
from training.evaluation import metrics
from training.evaluation.corruptions import KINDS
from training.evaluation.evaluate import EvaluationData, Validation, predict, prepare
from training.evaluation.intervals import wilson
from training.evaluation.report import distribution_shift, novelty, robustness
from visionserve.classifier import Classifier
from visionserve.engines import Outputs
from visionserve.errors import BundleError
from visionserve.model_card import Device, Input, ModelCard
from visionserve.novelty import Reference

COLOURS = {"crimson": (210, 30, 40), "emerald": (20, 180, 60), "navy": (30, 40, 200)}
LABELS = tuple(COLOURS)
PURPLE = (150, 20, 160)


class Eye:
    """Says crimson, emerald or navy by the mean colour of a picture, which is its embedding, too."""

    device: Device = "cpu"
    name = "an eye"

    def run(self, images: np.ndarray) -> Outputs:
        colours = (images.mean((1, 2)) / 25).astype(np.float32)  # (B, 3)
        return Outputs(colours, colours[:, :, None, None], colours)


def folder(root: Path, colour: tuple[int, int, int], count: int) -> Path:
    root.mkdir(parents=True)
    for number in range(count):
        image(colour, 1000 * sum(colour) + number).save(root / f"{number}.png")
    return root


@pytest.fixture
def data(tmp_path: Path) -> EvaluationData:
    """Six validation and four test photographs of each colour, all recognised."""
    card = ModelCard("colours", "1.0", "resnet18", LABELS, Input(32, 1.0, (0.5,) * 3, (0.2,) * 3))
    rows = []
    for label, colour in COLOURS.items():
        folder(tmp_path / label, colour, 10)
        rows += [Row(f"{label}/{n}.png", label, "val" if n < 6 else "test", "0") for n in range(10)]
    manifest = Manifest(tmp_path, LABELS, tuple(rows))
    bare = Reference(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32), np.ones(1, np.float32))
    plain = Classifier(card, Eye(), bare)
    places = {split: manifest.part(split) for split in ("val", "test")}
    images = {split: prepare([tmp_path / rows[p].path for p in places[split]], plain.preprocessing) for split in places}
    targets = {split: np.array([manifest.targets()[p] for p in places[split]]) for split in places}
    seen = Eye().run(images["val"])
    classifier = Classifier(card, Eye(), Reference.fit(seen.embedding, targets["val"], seen.embedding, seen.logits))
    predictions = {split: predict(classifier, images[split]) for split in images}
    files = tuple(tmp_path / rows[place].path for place in places["test"])
    return EvaluationData(
        tmp_path,
        classifier,
        manifest,
        "test",
        files,
        images["test"],
        targets["test"],
        predictions["test"],
        predictions["test"].logits,
        Validation(predictions["val"], targets["val"]),
    )


def test_the_threshold_keeps_what_it_says_and_not_more_than_it_must() -> None:
    values = np.random.default_rng(0).random(736)
    threshold = novelty.threshold_that_keeps(values, 0.95)
    assert (values <= threshold).mean() >= 0.95
    assert (values < threshold).mean() < 0.95


def test_the_area_under_the_curve_is_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(1)
    inside, outside = generator.integers(0, 40, 300) / 50, generator.integers(10, 50, 90) / 50  # many ties
    truth = np.r_[np.zeros(300), np.ones(90)]
    assert metrics.separation(inside, outside) == pytest.approx(roc_auc_score(truth, np.r_[inside, outside]))
    found = novelty.compare(inside, outside, threshold=0.7)
    assert found["auroc_interval"][0] < found["auroc"] < found["auroc_interval"][1]
    assert found["turned_away"] == pytest.approx((outside > 0.7).mean(), abs=1e-4)


def test_other_things_are_told_apart_and_the_card_hears_of_it(data: EvaluationData, tmp_path: Path) -> None:
    grey, ours = folder(tmp_path / "grey", (128, 128, 128), 5), folder(tmp_path / "ours", COLOURS["navy"], 5)
    found = novelty.section(data, {"grey": grey, "more of ours": ours})
    assert found.figures["sets"]["grey"]["auroc"] > 0.9
    assert found.figures["sets"]["more of ours"]["auroc"] < 0.9
    assert found.figures["kept_of_validation"] >= 0.95
    assert found.headline["novelty"]["auroc"]["grey"] == found.figures["sets"]["grey"]["auroc"]
    assert sum(line.startswith(("| grey | 5 |", "| more of ours | 5 |")) for line in found.lines) == 2


def test_a_folder_without_photographs_is_named(data: EvaluationData, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError, match=r"empty holds no images$"):
        novelty.section(data, {"nothing": tmp_path / "empty"})


def test_photographs_from_elsewhere_count_for_the_label_that_their_folder_shows(
    data: EvaluationData, tmp_path: Path
) -> None:
    web = tmp_path / "web"
    folder(web / "red", COLOURS["crimson"], 3)
    folder(web / "green", COLOURS["navy"], 1)  # a mistake of whoever sorted them
    folder(web / "violet", PURPLE, 2)
    names = tmp_path / "names.csv"
    names.write_text("folder,label\nred,crimson\ngreen,emerald\n")
    found = distribution_shift.section(data, web, names).figures
    assert {row["folder"]: row.get("right") for row in found["folders"]} == {"green": 0, "red": 3, "violet": None}
    assert (found["all"]["photographs"], found["all"]["top1"]) == (4, 0.75)
    assert found["all"]["top1_interval"] == pytest.approx(wilson(3, 4), abs=1e-4)
    assert found["folders"][2]["novel"] == 1.0


def test_without_names_a_folder_is_named_like_its_label(data: EvaluationData, tmp_path: Path) -> None:
    folder(tmp_path / "web" / "navy", COLOURS["navy"], 2)
    assert distribution_shift.section(data, tmp_path / "web", None).figures["all"]["top1"] == 1.0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("red,crimson\n", "must have the two columns folder,label"),
        ("folder,label\nred\n", "must have the two columns folder,label"),
        ("folder,label\npink,crimson\n", "the folder 'pink', which does not exist"),
        ("folder,label\nred,crimson\nred,navy\n", "the folder 'red' twice"),
        ("folder,label\nred,carmine\n", "'carmine', of the folder 'red', is not a label"),
        ("folder,label\nred,\n", "gives no folder a label"),
    ],
    ids=["no header", "one column", "no such folder", "twice", "no such label", "nothing named"],
)
def test_wrong_names_are_refused_in_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "names.csv").write_text(text)
    with pytest.raises(BundleError, match=sentence) as caught:
        distribution_shift.read_names(tmp_path / "names.csv", ["red", "green"], LABELS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("made", "sentence"), [(".", "no class folders"), ("web/lilac", "with --names")])
def test_folders_that_show_nothing_known_are_refused(
    data: EvaluationData, tmp_path: Path, made: str, sentence: str
) -> None:
    (tmp_path / "elsewhere" / made).mkdir(parents=True, exist_ok=True)
    with pytest.raises(BundleError, match=sentence):
        distribution_shift.section(data, tmp_path / "elsewhere", None)


def test_the_mean_is_over_all_cells_and_its_share_that_of_the_clean_accuracy() -> None:
    clean = np.array([True, True, True, False])
    right = np.array([[True, True, False, False], [True, False, False, False]])
    found = robustness.summary(clean, right)
    assert found["mean_accuracy"] == 0.375
    assert found["relative_accuracy"] == 0.5
    low, high = found["mean_accuracy_interval"]
    assert 0 <= low < 0.375 < high <= 1


def test_images_that_are_all_right_under_every_corruption_do_not_prove_perfection() -> None:
    low, high = robustness.summary(np.ones(12, bool), np.ones((45, 12), bool))["mean_accuracy_interval"]
    assert (low, high) == (pytest.approx(0.758, abs=0.001), 1)  # it was 1 to 1


def test_images_of_few_groups_give_wide_intervals(data: EvaluationData) -> None:
    """A label's images of one site say nothing of other sites; nor do those of three sites say much of corruptions."""
    clean, right = np.arange(60) % 20 < 18, np.tile(np.arange(60) % 20 < 10, (45, 1))
    right[:, :20] = True
    single, grouped = (robustness.summary(clean, right, of) for of in ((), ["a"] * 20 + ["b"] * 20 + ["c"] * 20))
    assert single["mean_accuracy"] == grouped["mean_accuracy"]
    narrow, wide = (np.ptp(found["mean_accuracy_interval"]) for found in (single, grouped))
    assert wide > 2 * narrow
    rows = tuple(replace(row, group=row.label) for row in data.manifest.rows)
    by_label = replace(data, manifest=replace(data.manifest, rows=rows))
    narrow, wide = (np.ptp(robustness.section(of, (1,)).figures["clean"]["interval"]) for of in (data, by_label))
    assert wide > 1.5 * narrow


def test_every_kind_and_severity_has_its_cell_beside_the_unchanged_images(data: EvaluationData) -> None:
    found = robustness.section(data, (1, 5))
    assert [(cell["kind"], cell["severity"]) for cell in found.figures["cells"]] == [
        (k, s) for k in KINDS for s in (1, 5)
    ]
    assert found.figures["clean"]["accuracy"] == 1.0
    mean = np.mean([cell["accuracy"] for cell in found.figures["cells"]])
    assert found.figures["mean_accuracy"] == pytest.approx(mean, abs=1e-3)
    assert sum(line.startswith("| ") for line in found.lines) == 2 + len(KINDS)
    assert [plot.photographs for plot in found.plots] == [False, False]


def test_a_second_measurement_meets_the_same_pictures(data: EvaluationData) -> None:
    assert robustness.section(data, (3,)).figures == robustness.section(data, (3,)).figures


def test_options_that_cannot_be_meant_are_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["evaluate", "--bundle", str(tmp_path), "--data.root", str(tmp_path)]
    assert main([*given, "--outside", "a=x", "--outside", "a=y"]) == 1
    assert "have the same name: write --outside NAME=DIR" in capsys.readouterr().err
    assert main([*given, "--outside", f"a={tmp_path}", "--output", str(tmp_path / "report")]) == 1
    assert "whose images are read: choose another folder" in capsys.readouterr().err
    assert main([*given, "--names", "names.csv"]) == 1
    assert "give both" in capsys.readouterr().err
