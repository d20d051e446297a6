"""Networks of timm: the same class maps, export and int8 form as torchvision's, or one sentence why not."""

import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from tests.unit.conftest import INPUT
from tests.unit.training import synthetic_images
from training.export.gates import items_that_depend_on_their_batch
from training.export.onnx import export
from training.export.quantize import quantize
from training.fit.module import load_body
from training.fit.run import Run
from training.fit.trainer import fit
from visionserve import engines, network
from visionserve.errors import BundleError


@pytest.mark.parametrize("name", ["resnet10t", "regnetx_002", "mobilenetv2_050", "starnet_s1"])
def test_the_export_form_gives_the_networks_own_logits_as_the_mean_of_its_class_maps(name: str) -> None:
    torch.manual_seed(0)
    eager = network.build(f"timm/{name}", 3).eval()
    form = network.ExportForm(eager, network.MEAN, network.STD).eval()
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        expected = eager(form.normalise(images.permute(0, 3, 1, 2)))
        logits, class_maps, embedding = form(images)
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(class_maps.mean((2, 3)), logits)
    assert class_maps.shape == (2, 3, 2, 2)
    assert embedding.shape == (2, network.head(eager).in_features)


@pytest.mark.slow
def test_exported_and_in_int8_it_answers_alike_in_any_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    eager = network.build("timm/resnet10t", 3).eval()
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    export(eager, INPUT, tmp_path / "fp32.onnx")
    quantize(tmp_path / "fp32.onnx", [images], tmp_path / "int8.onnx")
    with torch.no_grad():
        expected = network.ExportForm(eager, network.MEAN, network.STD).eval()(torch.from_numpy(images))[0].numpy()
    for file, allowed in (("fp32.onnx", 1e-4), ("int8.onnx", 0.1 * np.abs(expected).max())):
        engine = engines.load(tmp_path / file)
        outputs = engine.run(images)
        assert np.abs(outputs.logits - expected).max() < allowed
        assert items_that_depend_on_their_batch(engine, images, outputs) == 0


@pytest.mark.parametrize(
    "name",
    ["convnext_atto", "mobilenetv3_small_050", "vit_tiny_patch16_224"],
    ids=["norm behind the pool", "convolution behind the pool", "tokens"],
)
def test_a_network_without_class_maps_runs_as_it_is(name: str) -> None:
    eager = network.build(f"timm/{name}", 3).eval()
    assert not network.has_class_maps(eager)
    form = network.ExportForm(eager, network.MEAN, network.STD).eval()
    images = torch.randint(0, 256, (2, 224, 224, 3), dtype=torch.uint8)
    with torch.no_grad():
        expected = eager(form.normalise(images.permute(0, 3, 1, 2)))
        logits, class_maps, embedding = form(images)
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-5)
    assert class_maps.shape == (2, 3, 1, 1)
    assert embedding.shape == (2, network.head(eager).in_features)


def test_a_network_of_two_heads_is_refused() -> None:
    with pytest.raises(BundleError, match="does not end in one linear layer"):
        network.build("timm/levit_128s", 3)


@pytest.mark.parametrize("name", ["resnet19", "hf-hub:timm/resnet18", ""])
def test_a_name_that_timm_does_not_know_is_refused(name: str) -> None:
    with pytest.raises(BundleError, match="timm has no network"):
        network.build(f"timm/{name}", 3)


def test_without_timm_its_networks_are_refused_and_all_others_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(BundleError, match="needs timm, which is not installed"):
        network.build("timm/resnet10t", 3)
    assert network.head(network.build("shufflenet_v2_x0_5", 3)).out_features == 3


def test_a_resnet_of_timm_takes_the_weights_of_torchvisions() -> None:
    weights = network.build("resnet18", 5).state_dict()
    ours = network.build("timm/resnet18", 3)
    load_body(ours, network.adapt_imagenet(weights))
    state = ours.state_dict()
    assert torch.equal(state["layer4.1.conv2.weight"], weights["layer4.1.conv2.weight"])
    assert state["fc.weight"].shape == (3, 512)


def test_the_weights_of_a_transformer_of_timm_are_adapted_from_the_normalisation_they_were_published_for() -> None:
    published = timm.create_model("vit_tiny_patch16_224").eval()
    weights = published.state_dict()
    ours = network.build("timm/vit_tiny_patch16_224", 3)
    load_body(ours, network.adapt_published("timm/vit_tiny_patch16_224", weights))
    pixels = torch.randint(0, 256, (1, 3, 224, 224))
    halves = (0.5, 0.5, 0.5)
    before = published.get_submodule("patch_embed")(network.Normalisation(halves, halves)(pixels))
    after = ours.get_submodule("patch_embed")(network.Normalisation(network.MEAN, network.STD)(pixels))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


def test_trying_a_network_draws_no_random_numbers_and_leaves_it_training_in_single_precision() -> None:
    torch.manual_seed(0)
    ours, next_ours = network.build("timm/resnet10t", 3), torch.rand(1)
    torch.manual_seed(0)
    plain, next_plain = timm.create_model("resnet10t", num_classes=3), torch.rand(1)
    assert ours.training
    assert torch.equal(next_ours, next_plain)
    for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)


def test_torchvision_has_no_weights_for_them(tmp_path: Path) -> None:
    photographs = synthetic_images.image_folder(tmp_path / "colours", per_label=4)
    with pytest.raises(BundleError, match="torchvision has no weights of timm/resnet10t"):
        fit(
            synthetic_images.recipe(photographs, architecture="timm/resnet10t", init="torchvision"),
            Run(tmp_path / "run"),
        )
