"""The layer of parts: from the features of a place to the logits of the card's parts; a file beside the weights.

In float32 whatever the network computes in: the weights of features that hardly vary are beyond half precision's range.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from visionserve.errors import BundleError
from visionserve.model_card import ModelCard

FILE_NAME = "parts.safetensors"  # `weight` (P, D) and `bias` (P), float32


class PartLayer(nn.Module):
    """The linear layer at each place of feature maps."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.classify = nn.Conv2d(weight.shape[1], len(bias), kernel_size=1)
        self.classify.weight = nn.Parameter(weight[:, :, None, None])
        self.classify.bias = nn.Parameter(bias)

    def forward(self, feature_maps: Tensor) -> Tensor:
        """Return the logits of parts (B, P, h, w), float32, of feature maps (B, D, h, w) of any precision."""
        logits: Tensor = self.classify(feature_maps.float())
        return logits


def load(folder: Path, card: ModelCard) -> PartLayer | None:
    """Return the layer of a bundle or an unpacked archive; None where the card names no parts.

    Raises:
        BundleError: the file is missing, or is of other parts.
    """
    if card.parts is None:
        return None
    path = folder / FILE_NAME
    try:
        tensors = load_file(path)
        weight, bias = (tensors[name].to(torch.float32) for name in ("weight", "bias"))
    except Exception as error:  # safetensors' errors share no narrower base class
        raise BundleError(f"{path} cannot be read ({error}): make the bundle again") from error
    if weight.ndim != 2 or not len(weight) == len(bias) == len(card.parts.names):
        raise BundleError(f"{path} is not of the card's {len(card.parts.names)} parts")
    return PartLayer(weight, bias).eval()
