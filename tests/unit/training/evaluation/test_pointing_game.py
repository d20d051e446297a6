"""Where heatmaps point, on drawn birds and with a network whose class maps light up exactly on them."""

import json
import math
import re
from pathlib import Path

import pytest
from PIL import Image

from tests.unit.training import synthetic_birds
from training.__main__ import main
from training.data import manifest as manifests
from training.data.datasets.cub200 import Part
from training.evaluation import pointing_game
from training.evaluation.intervals import wilson
from visionserve.model_card import ModelCard


@pytest.fixture(scope="module")
def birds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_birds.folder(tmp_path_factory.mktemp("data") / "CUB_200_2011")


@pytest.fixture(scope="module")
def bundle(birds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_birds.bundle(birds, tmp_path_factory.mktemp("made") / "bundle")


@pytest.fixture(scope="module")
def manifest(birds: Path, bundle: Path) -> manifests.Manifest:
    labels = ModelCard.load(bundle / "card.json").labels
    return manifests.load(bundle / manifests.FILE_NAME, birds, labels)


def test_the_peak_is_on_the_bird_and_names_its_beak(bundle: Path, manifest: manifests.Manifest) -> None:
    found = pointing_game.point(bundle, manifest)
    assert len(found) == 11
    for item in found:
        box = item.annotation.box
        middle = (box.x + box.width / 2, box.y + box.height / 2)
        assert item.predicted == item.label
        assert item.inside
        assert item.part is not None and item.part.name == "beak"
        # The box is 24 pixels wide, a place of the class map shows 11.
        assert math.dist(item.peak, middle) < 6


def test_the_figures_count_hits_beside_the_centre_and_chance(bundle: Path, manifest: manifests.Manifest) -> None:
    found = pointing_game.figures(pointing_game.point(bundle, manifest), "test", 0.0)
    low, high = wilson(11, 11)
    assert found["pointing"]["peak"] == {
        "hits": 11,
        "of": 11,
        "share": 1.0,
        "interval": [round(low, 4), round(high, 4)],
    }
    numbers = [n for n in range(1, 25) if n % 2 == 0 and n != 8]
    centre = [
        n for n in numbers if max(abs(a - b) for a, b in zip(synthetic_birds.centre(n), (75, 50), strict=True)) <= 12
    ]
    assert found["pointing"]["centre"]["hits"] == len(centre) < 11
    assert found["pointing"]["chance"]["share"] == pytest.approx(24 * 24 / 90**2, rel=0.1)
    assert [(row["part"], row["hits"], row["visible"]) for row in found["parts"]] == [
        ("beak", 11, 11),
        ("left wing", 0, 11),
    ]


def test_a_tolerance_widens_the_box(bundle: Path, manifest: manifests.Manifest) -> None:
    strict, wide = (
        pointing_game.figures(pointing_game.point(bundle, manifest, "test", by), "test", by) for by in (0.0, 100.0)
    )
    assert wide["pointing"]["centre"]["share"] == wide["pointing"]["chance"]["share"] == 1.0
    assert strict["pointing"]["centre"]["share"] < 1


def test_only_visible_parts_can_be_nearest() -> None:
    hidden, far = Part("eye", 1.0, 1.0, visible=False), Part("tail", 90.0, 90.0, visible=True)
    assert pointing_game.nearest([hidden, far], (0.0, 0.0)) == far
    assert pointing_game.nearest([hidden], (0.0, 0.0)) is None


def test_the_command_leaves_a_report_a_plot_and_a_sheet(
    birds: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--bundle", str(bundle), "--data.root", str(birds), "--output", str(tmp_path)]
    assert main(["pointing-game", *options]) == 0
    figures = json.loads((tmp_path / "parts.json").read_text(encoding="utf-8"))
    assert figures["pointing"]["peak"]["share"] == 1.0
    text = (tmp_path / "parts.md").read_text(encoding="utf-8")
    assert "| peak of the heatmap | 11 of 11 | 100.0 % |" in text
    assert "| beak | 11 | 100.0 % |" in text
    for name in ("parts.png", "sheet.png"):
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 200
    assert "beak 11" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("damage", "options", "message"),
    [
        ("annotations", [], "part_locs.txt is missing"),
        ("none", ["--tolerance", "-1"], "--tolerance is a number of pixels"),
        ("other photographs", [], "that .* has annotations of"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str, options: list[str], message: str
) -> None:
    root = synthetic_birds.folder(tmp_path / "birds")
    made = synthetic_birds.bundle(root, tmp_path / "bundle")
    if damage == "annotations":
        (root / "parts" / "part_locs.txt").unlink()
    elif damage == "other photographs":
        for name in ("images.txt", "bounding_boxes.txt"):
            lines = (root / name).read_text(encoding="utf-8").splitlines()[:4]
            (root / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    asked = ["--bundle", str(made), "--data.root", str(root), "--output", str(tmp_path / "out"), *options]
    assert main(["pointing-game", *asked]) == 1
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert re.search(message, printed)
