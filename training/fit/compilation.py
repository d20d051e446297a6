"""torch.compile, tried before it is needed."""

import torch
from torch import nn

from visionserve.errors import BundleError


def fuse(network: nn.Module) -> None:
    """Have ``network`` compiled at its first step, in place: its state keeps its names.

    Raises:
        BundleError: this machine cannot compile.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.compile(_trial)(torch.ones(8, device=device))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise BundleError(
            f"machine.compile needs a C++ compiler and Python's headers (Debian: g++, python3-dev) besides PyTorch: "
            f"install them or set it to false ({reason})"
        ) from error
    network.compile(dynamic=False)  # every size of picture has its own code: there are few, and it is faster


def _trial(values: torch.Tensor) -> torch.Tensor:
    return values.sin() + values
