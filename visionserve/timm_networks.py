"""Networks of timm (https://github.com/huggingface/pytorch-image-models), under the names `timm/NAME`.

Training and packaging need timm for them, serving does not: it runs an ONNX file.
"""

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn

from visionserve.errors import BundleError

PREFIX = "timm/"
Triple = tuple[float, float, float]
_SIDE = 96  # pixels of the images that a new network is tried with: enough for a stride of 32
_EXACT = 1e-9  # of the largest logit, in double precision; a batch norm behind the pooling shows as 5e-6


class Features(nn.Module):
    """The part of a timm network before its global average pool: (B, 3, H, W) -> (B, D, h, w); shares its weights."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the last feature maps."""
        return cast(Tensor, cast(Any, self.network).forward_features(inputs))


def build(architecture: str, classes: int) -> nn.Module:
    """Return a timm network with random weights and a linear head for ``classes`` labels.

    Raises:
        BundleError: timm is not installed or has no network of that name, or the network's logits are not those of a
            linear layer.
    """
    try:
        import timm
    except ImportError as error:
        raise BundleError(f"{architecture} needs timm, which is not installed: pip install timm") from error
    name = architecture.removeprefix(PREFIX)
    if not timm.is_model(name):
        raise BundleError(f"timm has no network named {name!r}")
    network: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes)
    if not isinstance(cast(Any, network).get_classifier(), nn.Linear):
        raise BundleError(f"{architecture} does not end in one linear layer; choose another network")
    return network


def normalisation(architecture: str) -> tuple[Triple, Triple] | None:
    """Return mean and standard deviation of the input for which timm publishes a network's weights, if it does."""
    import timm

    settings = timm.get_pretrained_cfg(architecture.removeprefix(PREFIX), allow_unregistered=True)
    return cast("tuple[Triple, Triple]", (settings.mean, settings.std)) if settings is not None else None


def is_of_timm(network: nn.Module) -> bool:
    """Whether a network was built by timm; read from the network itself, so that timm need not be installed."""
    return hasattr(network, "get_classifier") and hasattr(network, "forward_features")


def head(network: nn.Module) -> nn.Linear:
    """Return the last linear layer of a network that `build` made: (D) -> (C)."""
    return cast(nn.Linear, cast(Any, network).get_classifier())


def pools_then_classifies(network: nn.Module) -> bool:
    """Whether it does, by trial: the head applied to the mean of the feature maps must be what the network answers."""
    untyped = cast(Any, network)
    linear = untyped.get_classifier()
    if not isinstance(linear, nn.Linear) or untyped.pretrained_cfg.get("fixed_input_size"):
        return False
    images = torch.linspace(-2, 2, 6 * _SIDE**2, dtype=torch.float64).view(3, _SIDE, 2, _SIDE).permute(2, 0, 1, 3)
    # A copy: the network itself keeps its precision and its mode.
    tried = cast(Any, copy.deepcopy(network).double().eval())
    try:
        with torch.no_grad():
            feature_maps, expected = tried.forward_features(images), tried(images)
    except (RuntimeError, AssertionError, ValueError):  # a network of one size only
        return False
    if not isinstance(feature_maps, Tensor) or feature_maps.ndim != 4 or feature_maps.shape[1] != linear.in_features:
        return False
    with torch.no_grad():
        answered = tried.get_classifier()(feature_maps.mean((2, 3)))
    return bool((answered - expected).abs().max() <= _EXACT * expected.abs().max())
