import numpy as np
import pytest
import torch
import torchvision
from sklearn.datasets import load_sample_image
from torch import Tensor, nn

from training.fit.module import load_body
from visionserve import network
from visionserve.errors import BundleError
from visionserve.transforms import Preprocessing

FAMILIES = ["resnet18", "resnext50_32x4d", "regnet_y_400mf", "densenet121", "mobilenet_v2", "efficientnet_b0"]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("architecture", [*FAMILIES, "shufflenet_v2_x0_5"])
def test_the_export_form_gives_the_networks_own_logits_as_the_mean_of_its_class_maps(architecture: str) -> None:
    eager = network.build(architecture, 3).eval()
    form = network.ExportForm(eager, network.MEAN, network.STD).eval()
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        expected = eager(form.normalise(images.permute(0, 3, 1, 2)))
        logits, class_maps, embedding = form(images)
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(class_maps.mean((2, 3)), logits)
    assert class_maps.shape == (2, 3, 2, 2)
    assert embedding.shape == (2, network.head(eager).in_features)


@pytest.mark.parametrize(("architecture", "size"), [("mobilenet_v3_small", 64), ("shufflenet_v2_x0_5", 64)])
def test_the_export_form_of_any_network_gives_its_own_logits(architecture: str, size: int) -> None:
    check_form(network.build(architecture, 3).eval(), size)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "size"),
    [("vgg11", 64), ("alexnet", 64), ("convnext_tiny", 64), ("vit_b_32", 224), ("swin_t", 64), ("maxvit_t", 224)],
)
def test_the_export_form_of_every_other_family_gives_its_own_logits(architecture: str, size: int) -> None:
    eager = network.build(architecture, 3).eval()
    assert not network.has_class_maps(eager)
    check_form(eager, size)


def check_form(eager: nn.Module, size: int) -> None:
    form = network.ExportForm(eager, network.MEAN, network.STD).eval()
    images = torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8)
    before = {name: tensor.clone() for name, tensor in eager.state_dict().items()}
    with torch.no_grad():
        expected = eager(form.normalise(images.permute(0, 3, 1, 2)))
        logits, class_maps, embedding = form(images)
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(class_maps.mean((2, 3)), logits)
    assert (class_maps.shape == (2, 3, 1, 1)) is not network.has_class_maps(eager)
    assert embedding.shape == (2, network.head(eager).in_features)
    assert all(torch.equal(tensor, before[name]) for name, tensor in eager.state_dict().items())


def test_a_network_that_ends_in_a_convolution_is_refused() -> None:
    with pytest.raises(BundleError, match="ends in a convolution"):
        network.build("squeezenet1_0", 3)


@pytest.mark.filterwarnings("ignore:The default weight initialization of GoogleNet:FutureWarning")
def test_googlenet_has_class_maps_without_its_side_heads() -> None:
    eager = network.build("googlenet", 3).eval()
    assert network.has_class_maps(eager)
    check_form(eager, 64)


def test_a_size_that_a_transformer_cannot_take_is_refused_in_a_sentence() -> None:
    eager = network.build("timm/vit_tiny_patch16_224", 3)
    network.check_size(eager, 224)
    with pytest.raises(BundleError, match=r"cannot take images of 64 pixels \(.*\): set input\.size"):
        network.check_size(eager, 64)
    assert eager.training


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(BundleError, match="resnet19"):
        network.build("resnet19", 3)


def test_pixel_124_is_zero_and_58_levels_are_one_unit() -> None:
    pixels = torch.tensor([124, 182, 66], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 1, 1)
    normalised = network.Normalisation(network.MEAN, network.STD)(pixels)
    torch.testing.assert_close(normalised[:, 0, 0, 0], torch.tensor([0.0, 1.0, -1.0]))


def test_adapted_imagenet_weights_answer_as_before_inside_the_picture() -> None:
    published = network.build("resnet18", 3).eval()
    published.get_buffer("bn1.running_mean").normal_()
    adapted = network.build("resnet18", 3).eval()
    adapted.load_state_dict(network.adapt_imagenet(published.state_dict()))
    pixels = torch.randint(0, 256, (1, 3, 64, 64))

    def stem(net: nn.Module, normalise: nn.Module) -> Tensor:
        made: Tensor = net.get_submodule("bn1")(net.get_submodule("conv1")(normalise(pixels)))
        return made[:, :, 2:-2, 2:-2].detach()

    before = stem(published, network.Normalisation(network.IMAGENET_MEAN, network.IMAGENET_STD))
    after = stem(adapted, network.Normalisation(network.MEAN, network.STD))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


def test_weights_that_begin_with_a_biased_convolution_are_adapted_too() -> None:
    first = nn.Conv2d(3, 4, 3)
    adapted = nn.Conv2d(3, 4, 3)
    state = network.adapt_imagenet({f"features.0.{name}": tensor for name, tensor in first.state_dict().items()})
    adapted.load_state_dict({name.removeprefix("features.0."): tensor for name, tensor in state.items()})
    pixels = torch.randint(0, 256, (1, 3, 8, 8))
    before = first(network.Normalisation(network.IMAGENET_MEAN, network.IMAGENET_STD)(pixels))
    torch.testing.assert_close(adapted(network.Normalisation(network.MEAN, network.STD)(pixels)), before)


def test_the_published_weights_of_googlenet_are_taken_without_side_heads_and_with_its_own_normalisation() -> None:
    published = torchvision.models.googlenet(aux_logits=True, transform_input=True, init_weights=False).eval()
    published.get_buffer("conv1.bn.running_mean").normal_()
    adapted = network.build("googlenet", 3).eval()
    load_body(adapted, network.adapt_published("googlenet", published.state_dict()))
    pixels = torch.randint(0, 256, (1, 3, 64, 64))
    as_published = network.Normalisation(network.IMAGENET_MEAN, network.IMAGENET_STD)(pixels)
    before = published.conv1(published._transform_input(as_published))[:, :, 2:-2, 2:-2]
    after = adapted.get_submodule("conv1")(network.Normalisation(network.MEAN, network.STD)(pixels))[:, :, 2:-2, 2:-2]
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


def test_weights_without_a_first_convolution_cannot_be_adapted() -> None:
    with pytest.raises(BundleError, match="ResNet"):
        network.adapt_imagenet({"features.0.weight": torch.zeros(1)})


def grad_cam(eager: nn.Module, inputs: Tensor, index: int) -> np.ndarray:
    """Grad-CAM (Selvaraju et al. 2017, equations 1 and 2) at the last block, by hooks and gradients."""
    feature_maps: list[Tensor] = []
    hook = eager.get_submodule("layer4").register_forward_hook(lambda _m, _i, output: feature_maps.append(output))
    logits = eager(inputs)
    hook.remove()
    (gradient,) = torch.autograd.grad(logits[0, index], feature_maps[0])
    weights = gradient.mean((2, 3), keepdim=True)
    return torch.relu((weights * feature_maps[0]).sum(1))[0].detach().numpy()


@pytest.mark.parametrize("name", ["flower.jpg", "china.jpg"])
def test_class_maps_are_what_grad_cam_computes_with_gradients(name: str) -> None:
    eager = network.build("resnet18", 3).eval()
    form = network.ExportForm(eager, network.MEAN, network.STD).eval()
    pixels = torch.from_numpy(Preprocessing(224, 0.875)(np.array(load_sample_image(name)))[None])
    with torch.no_grad():
        _, class_maps, _ = form(pixels)
    for index in range(3):
        expected = grad_cam(eager, form.normalise(pixels.permute(0, 3, 1, 2)), index)
        ours = np.maximum(class_maps[0, index].numpy() - network.head(eager).bias[index].item(), 0)
        if expected.any():
            assert np.corrcoef(ours.ravel(), expected.ravel())[0, 1] > 0.99
            return
    pytest.fail("no label has a positive map; the test shows nothing")
