"""Networks: torchvision's and timm's architectures with our head, and the form of them that is exported and served.

    uint8 (B, H, W, 3) -> normalise -> features (B, D, h, w) -> classifier at every position -> class maps (B, C, h, w)
                                              |                                             `-> mean = logits (B, C)
                                              `-> mean = embedding (B, D)

A network that ends in pool-then-linear gives the same logits whether it pools before or after the linear layer; doing
it after yields the class activation maps (Zhou et al. 2016, arXiv 1512.04150) without a backward pass.

All other networks (VGG, ConvNeXt, MobileNet v3, transformers) run as they are. They have one class map of one position,
the logits themselves, so everything that reads outputs takes both; their card says that a heatmap is not available.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from visionserve import timm_networks
from visionserve.errors import BundleError
from visionserve.part_layer import PartLayer

# The input normalisation of our own models, the same for the three channels: pixel 124 is zero and 58 levels are one
# unit. An integer zero point makes the uint8 pixels themselves the quantized input of an int8 graph, without loss.
MEAN = (124 / 255,) * 3
STD = (58 / 255,) * 3
# What torchvision's ImageNet weights were trained with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Triple = tuple[float, float, float]
# Their further heads, which only training would use, are left out. Their published weights expect the three channels
# between -1 and 1: torchvision's `transform_input` converts from ImageNet's normalisation.
_WITH_SIDE_HEADS = ("googlenet", "inception_v3")
_SIDE_HEADS = ("aux1.", "aux2.", "AuxLogits.")
_FROM_MINUS_ONE_TO_ONE = (0.5,) * 3, (0.5,) * 3


def build(architecture: str, classes: int) -> nn.Module:
    """Return a network of torchvision, or of timm (``timm/NAME``), with random weights and ``classes`` labels.

    Raises:
        BundleError: the network does not exist, or its logits are not those of a linear layer.
    """
    if architecture.startswith(timm_networks.PREFIX):
        return timm_networks.build(architecture, classes)
    if architecture not in torchvision.models.list_models(module=torchvision.models):
        raise BundleError(f"torchvision has no classification network named {architecture!r}")
    side_heads = {"aux_logits": False, "init_weights": True} if architecture in _WITH_SIDE_HEADS else {}
    network: nn.Module = torchvision.models.get_model(architecture, weights=None, **side_heads)
    if architecture.startswith("squeezenet"):
        raise BundleError(f"{architecture} ends in a convolution, not in a linear layer; choose another network")
    old = head(network)
    network.set_submodule(_name_of(network, old), nn.Linear(old.in_features, classes, bias=old.bias is not None))
    return network


def has_class_maps(network: nn.Module) -> bool:
    """Whether a network of `build` ends in pool-then-linear, so that `ExportForm` gives class maps."""
    if timm_networks.is_of_timm(network):
        return timm_networks.pools_then_classifies(network)
    return _pooled_head(network) is not None


def check_size(network: nn.Module, size: int) -> None:
    """Refuse images of ``size`` x ``size`` pixels that the network cannot take, as transformers of one size only.

    Raises:
        BundleError: the network does not run on them.
    """
    training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            network(torch.zeros(1, 3, size, size))
    except Exception as error:  # networks refuse a size in many ways
        reason = " ".join(str(error).split())[:200]
        raise BundleError(
            f"the network cannot take images of {size} pixels ({reason}): set input.size and the size of every stage "
            "to one that it takes, such as 224"
        ) from error
    finally:
        network.train(training)


def load(architecture: str, classes: int, weights: Path) -> nn.Module:
    """Return the fp32 network of a safetensors file, in evaluation mode; a pruned one has its own widths.

    Raises:
        BundleError: the file is missing, or its weights are not those of such a network.
    """
    net = build(architecture, classes)
    try:
        tensors = load_file(weights)
        adopt_widths(net, tensors)
        net.load_state_dict(
            {k: tensor.float() if tensor.is_floating_point() else tensor for k, tensor in tensors.items()}
        )
    except (OSError, RuntimeError) as error:
        raise BundleError(f"{weights} does not fit {architecture} with {classes} labels: {error}") from error
    return net.eval()


def adopt_widths(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give the convolutions, batch norms and linear layers of ``network`` the widths that ``weights`` have.

    A pruned network is its architecture with narrower layers, so its state dict describes it completely. The
    weights are lost wherever a width changes: load the weights afterwards, which refuses what still does not fit
    (other labels, other kernels).
    """
    last = head(network)
    for name, module in network.named_modules():
        if not isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.Linear):
            continue
        for parameter, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            source = weights.get(f"{name}.{parameter}", tensor)
            fixed = slice(0, 1) if module is last else slice(2, None)  # the number of labels, the size of a kernel
            if source.shape == tensor.shape or source.ndim != tensor.ndim or source.shape[fixed] != tensor.shape[fixed]:
                continue
            narrow = tensor.new_zeros(source.shape)
            setattr(module, parameter, nn.Parameter(narrow) if isinstance(tensor, nn.Parameter) else narrow)
        _update_widths(module)


def _update_widths(module: nn.Conv2d | nn.BatchNorm2d | nn.Linear) -> None:
    """Update the attributes from which a layer's forward pass and exporters read its widths."""
    if isinstance(module, nn.Conv2d):
        if module.groups == module.in_channels:  # one group per channel, also of fewer channels
            module.groups = module.weight.shape[0]
        module.out_channels, module.in_channels = module.weight.shape[0], module.weight.shape[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    else:
        module.num_features = len(module.weight)


def head(network: nn.Module) -> nn.Linear:
    """Return the network's last linear layer: (D) -> (C)."""
    if timm_networks.is_of_timm(network):
        return timm_networks.head(network)
    return _pooled_head(network) or [part for part in network.modules() if isinstance(part, nn.Linear)][-1]


def features(network: nn.Module) -> nn.Module:
    """Return the part of the network before its global average pool: (B, 3, H, W) -> (B, D, h, w).

    The modules are the network's own, so its weights are shared.
    """
    if timm_networks.is_of_timm(network):
        return timm_networks.Features(network)
    if hasattr(network, "features"):
        last = [nn.ReLU()] if isinstance(network, torchvision.models.DenseNet) else []
        return nn.Sequential(cast(nn.Module, network.features), *last)
    return nn.Sequential(*[part for name, part in network.named_children() if name not in ("avgpool", "fc")])


class Normalisation(nn.Module):
    """Pixels 0-255 -> the network's input: (x / 255 - mean) / std per channel of (B, 3, H, W)."""

    offset: Tensor
    scale: Tensor

    def __init__(self, mean: Triple, std: Triple) -> None:
        super().__init__()
        offset = torch.tensor(mean, dtype=torch.float64) * 255
        scale = torch.tensor(std, dtype=torch.float64) * 255
        self.register_buffer("offset", offset.float().view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", scale.float().view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return (B, 3, H, W) float from (B, 3, H, W) of any type on a 0-255 scale."""
        normalised: Tensor = (pixels.to(self.offset.dtype) - self.offset) / self.scale
        return normalised


class ExportForm(nn.Module):
    """The served form of a network; it shares the network's weights."""

    def __init__(self, network: nn.Module, mean: Triple, std: Triple) -> None:
        super().__init__()
        linear = head(network)
        self.normalise = Normalisation(mean, std)
        self.has_class_maps = has_class_maps(network)
        self.parts: PartLayer | None = None  # set it after the form was given its precision
        if not self.has_class_maps:
            self.features = _without_head(network)
            self.classify: nn.Module = linear
            return
        self.features = features(network)
        convolution = nn.Conv2d(linear.in_features, linear.out_features, kernel_size=1)
        convolution.weight = nn.Parameter(linear.weight.detach()[:, :, None, None])
        convolution.bias = nn.Parameter(linear.bias.detach())
        self.classify = convolution

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return logits (B, C), class maps (B, C, h, w), embedding (B, D) of uint8 RGB (B, H, W, 3).

        With a layer of parts, its maps (B, P, h, w) too.
        """
        return self.from_normalised(self.normalise(images.permute(0, 3, 1, 2)))

    def from_normalised(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """The same from the network's own input, (B, 3, H, W) float."""
        if not self.has_class_maps:
            embedding = self.features(inputs)  # (B, D)
            logits = self.classify(embedding).float()
            return logits, logits[:, :, None, None], embedding.float()
        feature_maps = self.features(inputs)  # (B, D, h, w)
        class_maps = self.classify(feature_maps).float()  # (B, C, h, w)
        outputs = _average(class_maps), class_maps, _average(feature_maps.float())
        return outputs if self.parts is None else (*outputs, self.parts(feature_maps))


def adapt_published(architecture: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights that torchvision or timm publish for a network, for our normalisation, without side heads."""
    if architecture.startswith(timm_networks.PREFIX):
        normalisation = timm_networks.normalisation(architecture)
    else:
        normalisation = _FROM_MINUS_ONE_TO_ONE if architecture in _WITH_SIDE_HEADS else None
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith(_SIDE_HEADS)}
    return adapt_imagenet(kept, published=normalisation or (IMAGENET_MEAN, IMAGENET_STD))


def adapt_imagenet(
    weights: Mapping[str, Tensor],
    mean: Triple = MEAN,
    std: Triple = STD,
    published: tuple[Triple, Triple] = (IMAGENET_MEAN, IMAGENET_STD),
) -> dict[str, Tensor]:
    """Return weights, ``published`` for ImageNet's or another normalisation, that expect ``mean`` and ``std`` instead.

    The first convolution absorbs the change of scale, its bias or the running mean of the batch norm after it the
    change of offset: exact inside the image, not where the convolution sees its padding, which is of another colour.
    """
    adapted = {name: tensor.float() for name, tensor in weights.items()}
    first = next((name for name, tensor in adapted.items() if tensor.ndim == 4 and tensor.shape[1] == 3), "")
    bias = f"{first.removesuffix('weight')}bias"
    norm = next((name for name in adapted if name.endswith("running_mean")), "")
    if not first or (bias not in adapted and (not norm or adapted[norm].shape != adapted[first].shape[:1])):
        raise BundleError(
            "only weights that begin with a convolution that has a bias or a batch norm, as those of ResNets, can be "
            "adapted to this normalisation"
        )
    old_mean, old_std, new_mean, new_std = (torch.tensor(t).view(1, 3, 1, 1) for t in (*published, mean, std))
    kernel = adapted[first]  # such as (64, 3, 7, 7)
    shift = (kernel * (new_mean - old_mean) / old_std).sum((1, 2, 3))  # (64,)
    adapted[first] = kernel * new_std / old_std
    if bias in adapted:
        adapted[bias] = adapted[bias] + shift
    else:
        adapted[norm] = adapted[norm] - shift
    return adapted


def _average(maps: Tensor) -> Tensor:
    """Return the mean over h and w of (B, C, h, w) as (B, C).

    As a pooling on purpose: ONNX Runtime's ReduceMean rounds an image's means differently in batches of other sizes.
    """
    return functional.avg_pool2d(maps, (maps.shape[2], maps.shape[3])).flatten(1)


def _pooled_head(network: nn.Module) -> nn.Linear | None:
    """Return the only linear layer of torchvision's networks that pool before it; None where there is more."""
    fc = getattr(network, "fc", None)
    if isinstance(fc, nn.Linear):
        return fc
    classifier = getattr(network, "classifier", None)
    if isinstance(classifier, nn.Linear):
        return classifier
    if isinstance(classifier, nn.Sequential) and hasattr(network, "features"):
        linears = [part for part in classifier if isinstance(part, nn.Linear)]
        others = [part for part in classifier if not isinstance(part, nn.Linear | nn.Dropout)]
        if len(linears) == 1 and not others:
            return linears[0]
    return None


def _name_of(network: nn.Module, module: nn.Module) -> str:
    return next(str(name) for name, part in network.named_modules() if part is module)


def _without_head(network: nn.Module) -> nn.Module:
    """Return a copy of the network that ends before its head: (B, 3, H, W) -> (B, D); it shares the weights."""
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    body = copy.deepcopy(network, shared)
    body.set_submodule(_name_of(network, head(network)), nn.Identity())
    return body
