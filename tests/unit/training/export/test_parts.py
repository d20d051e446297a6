"""The part under the heat: fitted for a bundle of drawn birds, named in its explanations, on the page, and measured."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.unit.training import synthetic_birds
from training.data import manifest as manifests
from training.evaluation import pointing_game
from training.export import parts
from ui import card as page_card
from ui import markup
from visionserve import engines
from visionserve.classifier import Classifier
from visionserve.client.results import Part, read_model, read_native, read_v2
from visionserve.errors import BundleError
from visionserve.model_card import ModelCard, Parts
from visionserve.request_parsing import RawRequest, Request, parse
from visionserve.responses import render


@pytest.fixture(scope="module")
def birds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_birds.folder(tmp_path_factory.mktemp("data") / "CUB_200_2011")


@pytest.fixture(scope="module")
def plain(birds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_birds.bundle(birds, tmp_path_factory.mktemp("plain") / "bundle")


@pytest.fixture(scope="module")
def bundle(birds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = synthetic_birds.bundle(birds, tmp_path_factory.mktemp("parts") / "bundle")
    card = ModelCard.load(folder / "card.json")
    parts.add(folder, card, manifests.load(folder / manifests.FILE_NAME, birds, card.labels))
    return folder


@pytest.fixture(scope="module")
def views(bundle: Path, birds: Path) -> np.ndarray:
    """The network's input of all drawn birds, (N, S, S, 3)."""
    classifier = Classifier.load(bundle)
    files = sorted((birds / "images").rglob("*.jpg"))
    return np.stack([pointing_game.network_view(file, classifier)[0] for file in files])


def request(*, explain: bool) -> Request:
    return parse(RawRequest("", {"body": b"x"}, {}, explain=explain), 3)


def test_the_card_has_the_parts_that_can_be_seen_and_how_often_they_are_named_right(bundle: Path) -> None:
    known = ModelCard.load(bundle / "card.json").parts
    assert known is not None
    assert known.names == ("head", "wing"), "the tail is visible in no image"
    assert known.images == 11
    assert known.accuracy > 0.9  # the heat of a drawn bird is strongest on its beak


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_other_outputs_stay_as_they_were(bundle: Path, plain: Path, views: np.ndarray, runtime: str) -> None:
    with_parts, without = (
        engines.load(folder / "model.int8.onnx", runtime=runtime).run(views)  # type: ignore[arg-type]
        for folder in (bundle, plain)
    )
    for name in ("logits", "class_maps", "embedding"):
        np.testing.assert_array_equal(getattr(with_parts, name), getattr(without, name))
    assert without.part_maps is None
    assert with_parts.part_maps is not None and with_parts.part_maps.shape == (len(views), 2, 8, 8)


def test_a_part_depends_on_no_batch_mate(bundle: Path, views: np.ndarray) -> None:
    engine = engines.load(bundle / "model.int8.onnx")
    together, alone = engine.run(views[:5]).part_maps, engine.run(views[2:3]).part_maps
    assert together is not None and alone is not None
    np.testing.assert_array_equal(together[2], alone[0])


def test_an_explanation_names_the_part_and_a_prediction_does_not(bundle: Path, views: np.ndarray) -> None:
    classifier = Classifier.load(bundle)
    answers = classifier.classify(views[:1])
    explained, predicted = (
        json.loads(render(request(explain=explain), list(views[:1]), answers, classifier.card).body)
        for explain in (True, False)
    )
    assert explained["part"]["name"] == "head" and 0.5 < explained["part"]["probability"] <= 1
    assert "part" not in predicted
    assert read_native(explained, "", {}).part == Part("head", explained["part"]["probability"])
    assert read_native(predicted, "", {}).part is None


def test_open_inference_has_a_tensor_of_parts(bundle: Path, views: np.ndarray) -> None:
    classifier = Classifier.load(bundle)
    answers = classifier.classify(views[:2])
    content = json.loads(
        render(replace(request(explain=True), protocol="v2"), list(views[:2]), answers, classifier.card).body
    )
    tensors = {tensor["name"]: tensor for tensor in content["outputs"]}
    assert tensors["part"]["shape"] == tensors["part_probability"]["shape"] == [2]
    part = read_v2(content, "", {}).part
    assert part is not None and part.name == "head"


def test_the_page_says_how_often_such_a_name_is_right(bundle: Path) -> None:
    content = json.loads((bundle / "card.json").read_text(encoding="utf-8"))
    model = {"name": "birds", "version": "1", "digest": "0", "status": "ready", "workers": {"ready": 1, "total": 1}}
    card = page_card.read(read_model(model | {"card": content}))
    sentence = markup.part(Part("<head>", 0.72), card.part_accuracy)
    assert "strongest on: <b>&lt;head&gt;</b> (72.0 %)" in sentence
    assert "right for 100.0 % of the test images" in sentence
    assert page_card.read(read_model(model | {"card": {}})).part_accuracy is None


def test_data_without_part_locations_leave_a_bundle_as_it_is(plain: Path, birds: Path, tmp_path: Path) -> None:
    card = ModelCard.load(plain / "card.json")
    manifest = manifests.load(plain / manifests.FILE_NAME, birds, card.labels)
    before = (plain / card.model).read_bytes()
    assert parts.add(plain, card, replace(manifest, root=tmp_path)) is card
    assert (plain / card.model).read_bytes() == before
    assert "parts" not in json.loads((plain / "card.json").read_text(encoding="utf-8"))


def test_parts_of_a_card_are_read_back_and_others_are_refused(bundle: Path, tmp_path: Path) -> None:
    card = replace(ModelCard.load(bundle / "card.json"), parts=Parts(("head", "tail"), 0.5, 9))
    card.save(tmp_path / "card.json")
    assert ModelCard.load(tmp_path / "card.json").parts == card.parts
    content = json.loads(card.text()) | {"parts": {"names": ["head"], "right": 1}}
    (tmp_path / "card.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(BundleError, match=r"parts: unknown entries: right"):
        ModelCard.load(tmp_path / "card.json")


def test_the_layer_is_the_regression_that_was_fitted(tmp_path: Path, plain: Path) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(3, 5, (300, 3)).astype(np.float32)
    targets = (features[:, 0] > features[:, 1]).astype(np.int64)
    layer = parts.fit(parts.Places(features, targets), 2, 0.001)
    assert float(((features @ layer.weight.T + layer.bias).argmax(1) == targets).mean()) > 0.97
    model = tmp_path / "model.onnx"
    model.write_bytes((plain / "model.int8.onnx").read_bytes())
    parts.append(model, layer)
    images = rng.integers(0, 256, (1, synthetic_birds.SIDE, synthetic_birds.SIDE, 3), np.uint8)
    outputs = engines.load(model, runtime="onnxruntime").run(images)
    assert outputs.part_maps is not None
    expected = np.einsum("pd,bdhw->bphw", layer.weight, outputs.class_maps) + layer.bias[None, :, None, None]
    np.testing.assert_allclose(outputs.part_maps, expected, rtol=1e-3, atol=1e-2)
    assert [output.name for output in onnx.load(model).graph.output][-1] == engines.PART_MAPS
