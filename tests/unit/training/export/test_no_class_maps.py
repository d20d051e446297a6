"""A network without class maps from drawn images to answers: gates hold, and answers say why a heatmap is missing."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.unit.training import synthetic_images
from tests.unit.training.markers import LIGHTNING
from training import bundle
from training.export import package
from training.fit.run import Run
from training.fit.trainer import fit
from training.recipe import Augment, Optimizer, Stage
from visionserve import network, responses
from visionserve.classifier import Classifier
from visionserve.errors import BundleError, InvalidParameter
from visionserve.model_card import FILE_NAME, ModelCard
from visionserve.request_parsing import Request

pytestmark = LIGHTNING
ARCHITECTURE = "timm/test_convnext"  # of a quarter of a million weights, with a norm between pool and classifier


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    recipe = synthetic_images.recipe(
        synthetic_images.image_folder(folder / "colours", per_label=20),
        architecture=ARCHITECTURE,
        augment=Augment(min_area=0.8, policy="none", mixup=0.0, cutmix=0.0),
        optimizer=Optimizer(name="adamw", learning_rate=0.003, head_epochs=0, average_decay=0.5),
        stages=(Stage(1.0, synthetic_images.SIDE),),
    )
    fit(recipe, run := Run(folder / "run"))
    bundle.make(run, folder / "bundle")
    return folder / "bundle"


def test_its_bundle_passes_the_gates_and_its_card_and_report_say_that_there_is_no_heatmap(
    made: Path, tmp_path: Path
) -> None:
    card = ModelCard.load(made / FILE_NAME)
    assert not card.heatmap
    assert json.loads((made / FILE_NAME).read_text())["heatmap"] is False
    assert f"{ARCHITECTURE} has no class maps" in (made / "report.md").read_text()
    assert all(finding.passed for finding in package.build(made, tmp_path / "cpu.mar", "cpu"))


def test_its_explanations_are_predictions_with_a_note(made: Path) -> None:
    classifier = Classifier.load(made)
    image = np.full((1, synthetic_images.SIDE, synthetic_images.SIDE, 3), 90, np.uint8)
    answers = classifier.classify(image)
    request = Request((b"",), "plain", 1, "json", True, None)
    content = json.loads(responses.render(request, [*image], answers, classifier.card).body)
    assert "heatmap" not in content
    assert "has no class maps" in content["note"]
    assert content["predictions"]
    v2 = json.loads(responses.render(replace(request, protocol="v2"), [*image], answers, classifier.card).body)
    assert "heatmap" not in {output["name"] for output in v2["outputs"]}
    assert "has no class maps" in v2["parameters"]["note"]
    with pytest.raises(InvalidParameter, match="has no class maps"):
        responses.render(replace(request, format="png"), [*image], answers, classifier.card)


def test_a_recipe_of_a_size_that_the_network_cannot_take_is_refused_before_training(tmp_path: Path) -> None:
    images = synthetic_images.image_folder(tmp_path / "colours", per_label=4)
    with pytest.raises(BundleError, match="cannot take images of 24 pixels"):
        fit(synthetic_images.recipe(images, architecture="timm/test_vit"), Run(tmp_path / "run"))


def test_cards_of_networks_with_class_maps_are_as_before() -> None:
    assert network.has_class_maps(network.build("resnet18", 3))
    card = ModelCard("a", "1", "resnet18", ("x", "y"), ModelCard.load(Path("model_store/flowers/card.json")).input)
    assert "heatmap" not in json.loads(card.text())
