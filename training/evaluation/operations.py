"""What a network costs before any clock runs: the multiplications of one photograph."""

import torch
from torch import Tensor, nn


def count(network: nn.Module, size: int) -> int:
    """Return how often convolutions and linear layers multiply for one photograph of ``size`` x ``size`` pixels."""
    total = 0

    def add(layer: nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        places = output[0].numel() // output.shape[1]
        total += places * layer.get_parameter("weight").numel()

    hooks = [
        layer.register_forward_hook(add) for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    with torch.inference_mode():
        network(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    return total
