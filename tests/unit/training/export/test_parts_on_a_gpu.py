"""The archive for a GPU names parts too: by its half precision ONNX file and by its weights, both run on a CPU here."""

import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from tests.unit.conftest import TinyBundle
from training import golden
from training.export import contents, gates, package, parts
from visionserve import engines, part_layer
from visionserve.classifier import Classifier
from visionserve.engines import Engine, OnnxEngine
from visionserve.errors import BundleError
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import ModelCard, Parts
from visionserve.torch_engine import TorchEngine

NAMES = ("head", "tail")


@pytest.fixture(scope="module")
def bundle(tiny: TinyBundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle with a layer of parts in its network and beside its weights."""
    folder = tmp_path_factory.mktemp("bundle") / "birds"
    shutil.copytree(tiny.directory, folder)
    halves = {name: t.half() if t.is_floating_point() else t for name, t in tiny.network.state_dict().items()}
    save_file({name: t.numpy() for name, t in halves.items()}, folder / engines.WEIGHTS)
    # Weights beyond half precision's range, as those of a feature that hardly varies are.
    weight = np.random.default_rng(0).normal(size=(len(NAMES), 512)).astype(np.float32)
    layer = parts.Layer(weight * 1e5, np.array([0.5, -0.5], np.float32))
    card = replace(ModelCard.load(folder / CARD), parts=Parts(NAMES, 0.5, 9))
    parts.store(folder, card, layer)
    card.save(folder / CARD)
    golden.write(folder)
    return folder


@pytest.fixture(scope="module")
def archive(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked archive for a GPU."""
    folder = tmp_path_factory.mktemp("archive")
    package.build(bundle, folder / "gpu.mar", "gpu")
    assert contents.differences(folder / "gpu.mar", bundle, "gpu") == []
    with zipfile.ZipFile(folder / "gpu.mar") as content:
        content.extractall(folder)
    return folder


def engine(archive: Path, name: str) -> Engine:
    if name == "torch":
        return TorchEngine(archive, "cpu", dtype=torch.float16)
    return OnnxEngine(archive / contents.MODEL)


@pytest.mark.parametrize("name", ["torch", "onnxruntime"])
def test_it_gives_the_part_maps_of_the_bundle_s_own_features(
    archive: Path, bundle: Path, name: str, tiny: TinyBundle
) -> None:
    outputs = engine(archive, name).run(tiny.images)
    tensors = load_file(bundle / part_layer.FILE_NAME)
    # The tiny network's feature maps have one place, so its embedding is the features of that place.
    expected = tiny_features(tiny) @ tensors["weight"].T + tensors["bias"]
    assert outputs.part_maps is not None and outputs.part_maps.dtype == np.float32
    assert outputs.part_maps.shape == (len(tiny.images), 2, 1, 1)
    np.testing.assert_allclose(outputs.part_maps[..., 0, 0], expected, rtol=0.02, atol=0.01 * np.abs(expected).max())


def tiny_features(tiny: TinyBundle) -> np.ndarray:
    """Return the fp32 network's features (B, 512)."""
    embedding: np.ndarray = OnnxEngine(tiny.directory / "model.fp32.onnx").run(tiny.images).embedding
    return embedding


@pytest.mark.parametrize("name", ["torch", "onnxruntime"])
def test_a_part_depends_on_no_batch_mate(archive: Path, tiny: TinyBundle, name: str) -> None:
    running = engine(archive, name)
    together, turned = running.run(tiny.images[:4]).part_maps, running.run(tiny.images[3::-1].copy()).part_maps
    assert together is not None and turned is not None
    np.testing.assert_array_equal(together, turned[::-1])


def test_an_explanation_of_the_archive_names_a_part(archive: Path, tiny: TinyBundle) -> None:
    card = ModelCard.load(archive / CARD)
    assert card.device == "cuda" and card.parts == Parts(NAMES, 0.5, 9)
    classifier = Classifier(card, engine(archive, "torch"), Classifier.load(tiny.directory).reference)
    part = classifier.classify(tiny.images[:1])[0].part(card)
    assert part is not None and part.name in NAMES and 0.5 <= part.probability <= 1


def test_a_batch_above_the_largest_has_the_parts_of_all_its_images(archive: Path, tiny: TinyBundle) -> None:
    outputs = TorchEngine(archive, "cpu", largest=4).run(tiny.images)
    whole = TorchEngine(archive, "cpu").run(tiny.images)
    assert outputs.part_maps is not None and whole.part_maps is not None
    np.testing.assert_allclose(outputs.part_maps, whole.part_maps, rtol=1e-3, atol=1e-3 * np.abs(whole.part_maps).max())


def test_the_gates_see_part_maps_that_depend_on_the_batch(bundle: Path, tiny: TinyBundle) -> None:
    running = OnnxEngine(bundle / "model.fp32.onnx")
    outputs = OnnxEngine(bundle / "model.int8.onnx").run(tiny.images)
    assert running.run(tiny.images).part_maps is None and outputs.part_maps is not None
    other = replace(outputs, part_maps=outputs.part_maps + 1)
    assert gates.items_that_depend_on_their_batch(OnnxEngine(bundle / "model.int8.onnx"), tiny.images, outputs) == 0
    assert gates.items_that_depend_on_their_batch(OnnxEngine(bundle / "model.int8.onnx"), tiny.images, other) == 12


def test_a_bundle_that_names_parts_without_their_layer_makes_no_archive_for_a_gpu(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "birds"
    shutil.copytree(bundle, copy)
    (copy / part_layer.FILE_NAME).unlink()
    with pytest.raises(BundleError, match=r"parts\.safetensors cannot be read .*make the bundle again"):
        package.build(copy, tmp_path / "out.mar", "gpu")
    package.build(copy, tmp_path / "out.mar", "cpu")  # whose file has it


def test_a_layer_of_other_parts_is_refused(bundle: Path, tmp_path: Path) -> None:
    card = replace(ModelCard.load(bundle / CARD), parts=Parts(("head", "leg", "tail"), 0.5, 9))
    with pytest.raises(BundleError, match="is not of the card's 3 parts"):
        part_layer.load(bundle, card)
    assert part_layer.load(tmp_path, replace(card, parts=None)) is None
