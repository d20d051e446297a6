"""The linear probe: the baseline of a run on few images, its start, and what it keeps when no epoch is better."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.unit.training import synthetic_images
from tests.unit.training.markers import LIGHTNING
from training import recipe as recipes
from training.data.datamodule import served
from training.evaluation.report.accuracy import baseline
from training.fit import probe as probes
from training.fit import selection
from training.fit.run import Run, read_manifest
from training.fit.trainer import begin, fit
from training.recipe import Optimizer, Recipe, Stage
from visionserve import network
from visionserve.model_card import Input, ModelCard
from visionserve.transforms import Preprocessing

pytestmark = LIGHTNING


def recipe_of(tmp_path: Path, rate: float) -> Recipe:
    torch.manual_seed(0)
    weights = network.build("resnet18", 3).state_dict()
    body = {name: tensor for name, tensor in weights.items() if not name.startswith("fc.")}
    save_file(body, tmp_path / "start.safetensors")
    return synthetic_images.recipe(
        synthetic_images.image_folder(tmp_path / "colours"),
        architecture="resnet18",
        init=str(tmp_path / "start.safetensors"),
        probe=True,
        epochs=1,
        optimizer=Optimizer(learning_rate=rate, head_epochs=0, average_decay=0.5),
        stages=(Stage(1.0, 24),),
    )


def test_training_begins_with_the_probe_and_keeps_it_where_few_images_validate(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe, run = recipe_of(tmp_path, rate=0.01), Run(tmp_path / "run")
    module, _ = begin(recipe, run)
    assert f"{len(read_manifest(run).part('val'))} validation images cannot tell an epoch" in caplog.text
    probe = probes.load(run.folder)
    for part in (module.network, module.average.module):
        assert torch.equal(part.get_parameter("fc.weight"), probe.weight)
    images, targets = served(read_manifest(run), "val", Preprocessing(recipe.input.size, recipe.input.crop))
    with torch.no_grad():
        logits = module.eval().average(module.prepare(torch.from_numpy(images)))
    predicted = logits.argmax(1).numpy()
    assert (predicted == targets).mean() == pytest.approx(probe.accuracy)
    assert probe.val_right is not None
    assert probe.val_right.tolist() == (predicted == targets).tolist()

    accuracy = fit(recipe, run)
    facts = json.loads(run.facts.read_text())
    assert facts["keeps"] == "probe"
    assert accuracy == pytest.approx(probe.accuracy)
    assert torch.equal(load_file(run.weights)["fc.weight"], probe.weight)


def test_an_epoch_that_is_better_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "FEWEST", 0)
    monkeypatch.setattr(selection, "select", lambda *_: selection.Selection(1.0, 1.0))
    recipe, run = recipe_of(tmp_path, rate=0.01), Run(tmp_path / "run")
    fit(recipe, run)
    facts = json.loads(run.facts.read_text())
    assert facts["keeps"] == "epoch"
    assert facts["probe_val_accuracy"] == pytest.approx(probes.load(run.folder).accuracy, abs=1e-4)
    probe = probes.load(run.folder)
    assert facts["probe_test_images"] == probe.test_images == len(read_manifest(run).part("test"))
    assert facts["probe_test_right"] == probe.test_right <= probe.test_images


@pytest.mark.parametrize(
    ("keeps", "words"),
    [
        ("epoch", "Kept: epoch 3, with 83.33 %"),
        ("probe", "Kept: the probe, because no epoch"),
        ("average", "Kept: an average of weights, 40 % epoch 3 and the rest the probe, with 83.33 %"),
    ],
)
def test_the_report_states_the_baseline_with_its_interval(keeps: str, words: str) -> None:
    facts = {"val_accuracy": 0.8333, "epoch": 3, "epoch_share": 0.4, "keeps": keeps, "probe_val_accuracy": 0.75}
    facts |= {"probe_test_right": 45, "probe_test_images": 48}
    card = ModelCard(
        "pets",
        "1.0",
        "resnet18",
        ("cat", "dog"),
        Input(64, 0.9, network.MEAN, network.STD),
        provenance={"baseline": facts},
    )
    text = baseline(card)
    assert "75.00 % of the validation, 93.75 % (83.2-97.9) of 48 test images" in text
    assert words in text
    assert baseline(replace(card, provenance={})) == ""


def test_the_folder_recipe_begins_with_a_probe() -> None:
    assert recipes.load(Path("training/recipes/folder.yaml")).probe


def test_a_small_data_set_gets_more_epochs_and_a_lower_rate(tmp_path: Path) -> None:
    recipe = synthetic_images.recipe(
        tmp_path,
        epochs=12,
        patience=6,
        batch_size=16,
        least_steps=200,
        optimizer=Optimizer(learning_rate=0.004, full_rate_images=1000),
    )
    for images, epochs, patience, rate in ((20, 204, 102, 0.00057), (90, 48, 24, 0.0012), (4000, 12, 6, 0.004)):
        sized = recipe.sized(images)
        assert (sized.epochs, sized.patience) == (epochs, patience)
        assert sized.optimizer.learning_rate == pytest.approx(rate, rel=0.02)
        assert sized.epochs * max(1, images // 16) >= 200
    plain = synthetic_images.recipe(tmp_path)
    assert plain.sized(5) == plain


def test_a_run_follows_the_size_of_its_data_and_keeps_the_recipe_as_it_was_given(tmp_path: Path) -> None:
    recipe = replace(recipe_of(tmp_path, rate=0.01), epochs=1, least_steps=6)
    run = Run(tmp_path / "run")
    fit(recipe, run)
    facts = json.loads(run.facts.read_text())
    assert facts["epochs"] == 2  # of three steps
    assert recipes.load(run.recipe) == recipe
    assert torch.load(run.checkpoints / "last.ckpt", weights_only=True)["epoch"] == 1


def test_random_weights_get_no_probe_and_the_log_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recipe = synthetic_images.recipe(synthetic_images.image_folder(tmp_path / "colours"), probe=True, epochs=1)
    module, _ = begin(recipe, Run(tmp_path / "run"))
    assert not module.recipe.probe
    assert not (tmp_path / "run" / probes.FILE_NAME).exists()
    assert "no linear probe" in caplog.text
