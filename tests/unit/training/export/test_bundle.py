"""From drawn photographs to a bundle that answers, by the commands a user types."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing import event_accumulator  # type: ignore[import-untyped]

from tests.unit.training import synthetic_images
from tests.unit.training.markers import LIGHTNING
from training import bundle
from training import recipe as recipes
from training.__main__ import COMMANDS, main
from training.evaluation import compare
from training.export import gates, package
from training.export.replacement import replacement
from training.fit.probe import Probe
from training.fit.run import Run
from training.recipe import Augment, Optimizer, Stage
from visionserve.classifier import Classifier
from visionserve.engines import OnnxEngine, Outputs
from visionserve.errors import BundleError
from visionserve.model_card import INT8, ModelCard

pytestmark = LIGHTNING


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_images.image_folder(tmp_path_factory.mktemp("data") / "colours", per_label=20)


@pytest.fixture(scope="module")
def made(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which `all` made a run and a bundle."""
    folder = tmp_path_factory.mktemp("made")
    recipe = synthetic_images.recipe(
        photographs,
        architecture="resnet18",
        epochs=8,
        data=replace(synthetic_images.recipe(photographs).data, seed=410),  # two of each label in validation and test
        augment=Augment(min_area=0.8, policy="none", mixup=0.0, cutmix=0.0),
        optimizer=Optimizer(learning_rate=0.01, head_epochs=0, average_decay=0.5),
        stages=(Stage(1.0, synthetic_images.SIDE),),
    )
    recipes.save(recipe, folder / "recipe.yaml")
    options = [
        "--config",
        str(folder / "recipe.yaml"),
        "--run",
        str(folder / "run"),
        "--output",
        str(folder / "bundle"),
    ]
    assert main(["all", *options]) == 0
    return folder


def test_the_bundle_holds_what_packaging_and_serving_need(made: Path) -> None:
    assert {path.name for path in (made / "bundle").iterdir()} == {
        "card.json",
        "curves.csv",
        "golden.json",
        "manifest.csv",
        "metrics.json",
        "model.int8.onnx",
        "plots",
        "reference.safetensors",
        "report.md",
        "weights.safetensors",
    }
    # No images of the data set: their licence keeps them out.
    assert {path.name for path in (made / "bundle" / "plots").iterdir()} == {
        "confusion.png",
        "coverage.png",
        "curves.png",
        "labels.png",
        "reliability.png",
    }


def test_the_report_shows_how_the_run_went(made: Path) -> None:
    report = (made / "bundle" / "report.md").read_text(encoding="utf-8")
    assert "## Training\n\n8 epochs, numbered from 0; the best on validation is " in report
    assert "(plots/curves.png)" in report


def test_the_bundle_recognises_photographs_it_never_saw(made: Path, tmp_path: Path) -> None:
    classifier = Classifier.load(made / "bundle")
    for index, (label, colour) in enumerate(synthetic_images.COLOURS.items()):
        synthetic_images.image(colour, 5000 + index).save(tmp_path / "new.png")
        answer = classifier.classify(classifier.prepare((tmp_path / "new.png").read_bytes())[None])[0]
        assert answer.top(1)[0].label == label


def test_the_card_says_where_the_model_comes_from_and_nothing_about_this_machine(made: Path, photographs: Path) -> None:
    card = ModelCard.load(made / "bundle" / "card.json")
    assert card.provenance["photographs"] == {"train": 48, "val": 6, "test": 6}
    assert len(card.provenance["manifest_sha256"]) == 64
    assert card.metrics["photographs"] == 6
    assert card.metrics["top1"] == 1.0
    assert str(photographs) not in (made / "bundle" / "card.json").read_text(encoding="utf-8")


def test_the_bundle_is_kept_where_the_run_is_tracked(made: Path) -> None:
    (folder,) = (made / "run").glob("version_*")
    events = event_accumulator.EventAccumulator(str(folder)).Reload()
    top1 = ModelCard.load(made / "bundle" / "card.json").metrics["top1"]
    assert [point.value for point in events.Scalars("bundle/top1")] == [pytest.approx(top1)]


def test_evaluate_finds_the_figures_of_the_card_again(
    made: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--bundle", str(made / "bundle"), "--data.root", str(photographs), "--output", str(tmp_path)]
    assert main(["evaluate", *options, "--outside", str(photographs)]) == 0
    again = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    once = json.loads((made / "bundle" / "metrics.json").read_text(encoding="utf-8"))
    assert again["novelty"]["sets"]["colours"]["photographs"] == 60
    when = {"measured"}
    assert {name: again[name] for name in once.keys() - when} == {name: once[name] for name in once.keys() - when}
    assert "top1" in capsys.readouterr().out


def test_quantize_writes_a_network_that_answers_as_the_shipped_one(
    made: Path, photographs: Path, tmp_path: Path
) -> None:
    options = ["--bundle", str(made / "bundle"), "--images", str(photographs), "--output", str(tmp_path / "int8.onnx")]
    assert main(["quantize", *options]) == 0
    classifier = Classifier.load(made / "bundle")
    images = np.stack([classifier.prepare(file.read_bytes()) for file in sorted(photographs.glob("*/0*.png"))])
    found = OnnxEngine(tmp_path / "int8.onnx").run(images).logits.argmax(1)
    assert (found == classifier.engine.run(images).logits.argmax(1)).all()


def test_a_failed_gate_keeps_the_old_bundle_and_prints_the_numbers(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path.name for path in (made / "bundle").iterdir())
    monkeypatch.setattr(gates, "INT8_IMAGES_DISTANCE", -1.0)
    monkeypatch.setattr(bundle, "FEW_IMAGES", 0)
    assert main(["bundle", "--run", str(made / "run"), "--output", str(made / "bundle")]) == 1
    printed = capsys.readouterr().err
    assert "gate int8: FAILED" in printed
    assert "train it longer" in printed
    assert sorted(path.name for path in (made / "bundle").iterdir()) == before
    assert sorted(path.name for path in made.iterdir()) == [".samples", "bundle", "cache", "recipe.yaml", "run"]


def test_a_model_of_few_images_whose_int8_fails_is_served_in_fp32_with_a_sentence(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gates, "INT8_IMAGES_DISTANCE", -1.0)
    folder = tmp_path / "small"
    assert main(["bundle", "--run", str(made / "run"), "--output", str(folder)]) == 0
    card = ModelCard.load(folder / "card.json")
    assert card.model == bundle.FP32
    assert (folder / bundle.FP32).is_file()
    assert not (folder / INT8).exists()
    assert "this model is served in fp32, not int8: of a model of only" in caplog.text
    assert "Served in fp32, not int8" in (folder / "report.md").read_text()
    assert card.metrics["top1"] == card.metrics["top1_fp32"]
    monkeypatch.undo()
    findings = package.build(folder, tmp_path / "small.mar", "cpu")
    assert any(finding.gate == "export" and finding.what == "largest difference of a logit" for finding in findings)
    assert [c.precision for c in compare.candidates(folder, ("int8", "fp32"), tmp_path)] == ["fp32"]


def test_what_is_served_is_never_worse_on_validation_than_the_probe_after_int8_too(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if quantization had cost two of the validation images, and the gates allowed it."""
    shutil.copytree(made / "run", tmp_path / "run")
    Probe(torch.zeros(3, 512), torch.zeros(3), 1.0, 0.1, val_right=torch.ones(6, dtype=torch.bool)).save(
        tmp_path / "run"
    )
    monkeypatch.setattr(bundle, "FEW_IMAGES", 0)
    monkeypatch.setattr(gates, "INT8_CHANGED", 1.0)
    monkeypatch.setattr(gates, "INT8_IMAGES_DISTANCE", 1.0)
    run = bundle.outputs

    def worse(model: Path, images: np.ndarray) -> Outputs:
        found = run(model, images)
        if model.name == INT8 and len(images) == 6:  # the validation images
            found.logits[:2] = np.roll(found.logits[:2], 1, axis=1)
        return found

    for outputs, served in ((run, INT8), (worse, bundle.FP32)):
        monkeypatch.setattr(bundle, "outputs", outputs)
        assert main(["bundle", "--run", str(tmp_path / "run"), "--output", str(tmp_path / "new")]) == 0
        card = ModelCard.load(tmp_path / "new" / "card.json")
        assert card.model == served
    assert "less often than the probe, 0.33, allowed 0" in card.provenance[bundle.SERVED_IN]


def test_int8_is_compared_with_the_probe_image_by_image() -> None:
    """Of 12 images the probe gets 11 right, int8 too, but not the same ones: one of them is lost to int8 alone."""
    targets = np.zeros(12, np.int64)
    fp32 = np.tile([4.0, 0.0], (12, 1))
    probe_right = targets == 0
    probe_right[0] = False
    int8 = fp32.copy()
    assert [finding.passed for finding in gates.beside_probe(int8, fp32, targets, probe_right)] == [True, True]
    int8[5] = [0.0, 4.0]
    fewer, lost = gates.beside_probe(int8, fp32, targets, probe_right)
    assert (fewer.measured, fewer.passed) == (0, True)
    assert lost.measured == pytest.approx(1 / 12)
    assert not lost.passed
    fp32[5] = [0.0, 4.0]  # fine-tuning lost it, and won the first: that is no fault of int8
    assert [finding.passed for finding in gates.beside_probe(int8, fp32, targets, probe_right)] == [True, True]
    int8[6] = [0.0, 4.0]
    assert [finding.passed for finding in gates.beside_probe(int8, fp32, targets, probe_right)] == [False, False]


def test_a_reference_of_few_images_is_called_weak(made: Path, caplog: pytest.LogCaptureFixture) -> None:
    main(["bundle", "--run", str(made / "run"), "--output", str(made / "bundle")])
    count = ModelCard.load(made / "bundle" / "card.json").provenance["photographs"]["val"]
    assert f"a novelty is a rank among only {count} validation images" in caplog.text
    assert f"The novelty reference is weak: {count} validation images" in (made / "bundle" / "report.md").read_text()


@pytest.mark.parametrize("interrupted", [1, 2], ids=["moving the old one", "moving the new one"])
def test_a_bundle_is_whole_whenever_its_replacement_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupted: int
) -> None:
    (tmp_path / "flowers").mkdir()
    (tmp_path / "flowers" / "old").touch()
    rename, calls = Path.rename, []

    def interrupt(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == interrupted:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupt)
    with pytest.raises(KeyboardInterrupt), replacement(tmp_path / "flowers") as folder:
        (folder / "new").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["flowers", "old"]


def test_a_bundle_that_a_killed_process_left_aside_is_brought_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".flowers.replaced").mkdir()
    (tmp_path / ".flowers.replaced" / "old").touch()
    with pytest.raises(ZeroDivisionError), replacement(tmp_path / "flowers"):
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.rglob("*")] == ["flowers", "old"]
    assert "the old bundle is back" in caplog.text


def test_a_replaced_bundle_leaves_nothing_behind(tmp_path: Path) -> None:
    for name in ("first", "second"):
        with replacement(tmp_path / "flowers") as folder:
            (folder / name).touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["flowers", "second"]


def test_what_a_killed_process_left_unfinished_is_removed_and_what_a_running_one_makes_is_not(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    old, running = (tmp_path / f".flowers.unfinished-{pid}-x" for pid in (ended.pid, os.getpid()))
    for folder in (old, running):
        folder.mkdir()
        os.utime(folder, (0, 0))
    with replacement(tmp_path / "flowers"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [running.name, "flowers"]


def test_sigterm_while_a_bundle_is_made_leaves_nothing_unfinished(made: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "training",
        "bundle",
        "--run",
        str(made / "run"),
        "--output",
        str(tmp_path / "new"),
    ]
    child = subprocess.Popen(command, cwd=Path(bundle.__file__).parents[1], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(".new.unfinished-*/bundle/card.json")):
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.terminate()
    assert child.wait(timeout=120) == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_a_test_image_for_the_first_answer_lies_beside_the_bundle_and_not_in_it(made: Path) -> None:
    name = ModelCard.load(made / "bundle" / "card.json").name
    classifier = Classifier.load(made / "bundle")
    data = (made / ".samples" / f"{name}.jpg").read_bytes()
    assert classifier.classify(classifier.prepare(data)[None])[0].probabilities.max() > 0.5
    assert not list((made / "bundle").rglob("*.jpg"))
    assert len(data) < 30_000


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no weights\.safetensors yet"):
        bundle.make(Run(tmp_path), tmp_path / "bundle")


def test_int8_is_compared_image_by_image_and_not_by_two_accuracies() -> None:
    fp32 = np.tile([4.0, 0.0], (1000, 1))
    fp32[::2] = [0.0, 4.0]
    for changed, passed in ((0, True), (20, True), (21, False)):
        int8 = fp32.copy()
        int8[:changed] = fp32[:changed, ::-1]
        agreement, distance, _ = gates.int8_gates(int8, fp32, temperature=1.0)
        assert agreement.passed is passed, "half of these labels got right and half wrong: both accuracies are equal"
        assert distance.passed


def test_int8_whose_labels_hold_but_whose_probabilities_do_not_is_refused() -> None:
    fp32 = np.tile([4.0, 0.0], (50, 1))
    agreement, distance, _ = gates.int8_gates(fp32 / 10, fp32, temperature=1.0)
    assert (agreement.passed, distance.passed) == (True, False)


def test_the_same_weights_serve_another_input_proven_anew(made: Path, photographs: Path, tmp_path: Path) -> None:
    before, resized = ModelCard.load(made / "bundle" / "card.json"), tmp_path / "resized"
    options = ["--bundle", str(made / "bundle"), "--data.root", str(photographs), "--output", str(resized)]
    assert main(["resize", *options, "--input", "24/0.8", "--version", before.version]) == 1
    assert main(["resize", *options, "--input", "24/0.8", "--version", "1.1"]) == 0
    card = ModelCard.load(resized / "card.json")
    assert (card.version, card.input.size, card.input.crop, card.input.mean) == ("1.1", 24, 0.8, before.input.mean)
    assert card.provenance["recipe"]["input"] == {"size": 24, "crop": 0.8}
    assert card.provenance["manifest_sha256"] == before.provenance["manifest_sha256"]
    assert card.metrics["photographs"] == before.metrics["photographs"]
    classifier = Classifier.load(resized)
    assert classifier.classify(np.zeros((1, 24, 24, 3), np.uint8))[0].probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert (resized / "weights.safetensors").read_bytes() == (made / "bundle" / "weights.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("count", "changed", "passed"), [(25, 0, False), (49, 0, False), (50, 0, True), (50, 1, True), (50, 2, False)]
)
def test_of_few_images_that_all_agree_nothing_is_shown_of_int8(count: int, changed: int, passed: bool) -> None:
    """Measured: none of 25 images changed, and 9 of the 250 test images of five flowers."""
    fp32 = np.tile([4.0, 0.0], (count, 1))
    int8 = fp32.copy()
    int8[:changed] = [0.0, 4.0]
    assert all(finding.passed for finding in gates.int8_gates(int8, fp32, temperature=1.0)) is passed


def test_the_decode_gate_counts_labels_that_the_scaled_decode_changes(made: Path, tmp_path: Path) -> None:
    classifier = Classifier.load(made / "bundle")
    synthetic_images.image((30, 40, 200), 1).resize((800, 900)).save(tmp_path / "large.jpg", quality=95)
    finding = gates.decode_gate(classifier, [(tmp_path / "large.jpg").read_bytes()])
    assert finding.measured == 0.0
    assert finding.allowed == 1.0  # one photograph, of one
    assert replace(finding, measured=2.0).passed is False


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"python -m training {command}" in capsys.readouterr().out


def test_an_unknown_command_prints_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train"]) == 2
    printed = capsys.readouterr().err
    assert all(command in printed for command in COMMANDS)


def test_a_bundle_of_another_run_is_set_aside_with_a_word_and_the_same_run_replaces_its_own(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(made / "bundle", folder)
    command = ["bundle", "--run", str(made / "run"), "--output", str(folder)]
    assert main(command) == 0
    assert "another training" not in capsys.readouterr().out
    card = ModelCard.load(folder / "card.json")
    other = replace(card, version="7", provenance=card.provenance | {"manifest_sha256": "0" * 64})
    other.save(folder / "card.json")
    assert main(command) == 0
    assert f"{folder} held {card.name} 7 of another training, which is now in " in capsys.readouterr().out
    (aside,) = (tmp_path / ".replaced").iterdir()
    assert ModelCard.load(aside / "card.json") == other
    assert ModelCard.load(folder / "card.json").version == card.version
