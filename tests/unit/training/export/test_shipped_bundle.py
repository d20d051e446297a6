"""The model we ship, held against what it promises: needs its files only, no data set, except where a test says so."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_image

from tests.unit.visionserve.test_network import grad_cam
from training.networks import load_network
from visionserve import network
from visionserve.classifier import Classifier
from visionserve.engines import Runtime
from visionserve.images import decode
from visionserve.model_card import ModelCard
from visionserve.transforms import Preprocessing

BUNDLE = Path(__file__).parents[4] / "model_store" / "flowers"


def photographs() -> dict[str, np.ndarray]:
    """scikit-learn's flower, and the photographs of VISIONSERVE_DATA/photos where there are any."""
    found = {"flower": np.array(load_sample_image("flower.jpg"))}
    if os.environ.get("VISIONSERVE_DATA"):
        files = sorted(Path(os.environ["VISIONSERVE_DATA"], "photos").glob("*.jpg"))
        found |= {file.stem: decode(file.read_bytes()) for file in files}
    return found


def test_its_card_promises_what_the_project_demands() -> None:
    metrics = ModelCard.load(BUNDLE / "card.json").metrics
    assert metrics["top1"] >= 0.96
    assert metrics["top1"] >= metrics["top1_fp32"] - 0.005
    assert metrics["calibration_error"] <= 0.03


def test_heatmaps_as_served_are_those_of_grad_cam_with_gradients() -> None:
    classifier = Classifier.load(BUNDLE)
    card, eager = classifier.card, load_network(BUNDLE)
    form = network.ExportForm(eager, card.input.mean, card.input.std).eval()
    for name, photograph in photographs().items():
        prepared = Preprocessing(card.input.size, card.input.crop)(photograph)
        pixels = torch.from_numpy(prepared[None])
        answer = classifier.classify(prepared[None])[0]
        index = answer.top(1)[0].index
        expected = grad_cam(eager, form.normalise(pixels.permute(0, 3, 1, 2)), index)
        with torch.no_grad():
            exact = form(pixels)[1][0, index].numpy()
        bias = network.head(eager).bias[index].item()
        assert correlation(np.maximum(exact - bias, 0), expected) > 0.99, f"{name}: fp32"
        assert correlation(np.maximum(answer.class_map(index) - bias, 0), expected) > 0.97, f"{name}: int8"


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_every_runtime_recognises_a_dahlia(runtime: Runtime) -> None:
    classifier = Classifier.load(BUNDLE, runtime=runtime)
    photograph = np.array(load_sample_image("flower.jpg"))
    best = classifier.classify(classifier.preprocessing(photograph)[None])[0].top(1)[0]
    assert best.label == "pink-yellow dahlia"
    assert best.probability > 0.5


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])
