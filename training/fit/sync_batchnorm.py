"""Batch norms whose statistics are those of the whole batch when several processes share it.

torch has them for GPUs; on processors the shares' statistics are exchanged here.
"""

from typing import Any, cast

import torch
from timm.layers.norm_act import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, distributed, nn


def synchronise(network: nn.Module, *, cuda: bool) -> nn.Module:
    """Return the network with synchronised batch norms; the names and values of its state stay."""
    if cuda:
        # torch's own does not know timm's norms
        return cast(nn.Module, convert_sync_batchnorm(network))  # type: ignore[no-untyped-call]
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = Synced
        elif type(module) is BatchNormAct2d:
            module.__class__ = SyncedAct
    return network


class Synced(nn.BatchNorm2d):
    """A batch norm over all processes' shares of a batch, which are of the same size."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (B, C, H, W), normalised by the whole batch; in evaluation by the running statistics."""
        return _normalised(self, inputs) if self.training else super().forward(inputs)


class SyncedAct(BatchNormAct2d):
    """The same, with timm's activation behind it."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (B, C, H, W), normalised and activated."""
        if not self.training:
            return cast(Tensor, super().forward(inputs))  # type: ignore[no-untyped-call]
        return cast(Tensor, self.act(self.drop(_normalised(self, inputs))))


def _normalised(norm: nn.BatchNorm2d, inputs: Tensor) -> Tensor:
    shares = _Gather.apply(torch.stack([*_moments(inputs)]))  # (processes, 2, C)
    means, variances = shares.unbind(1)
    mean = means.mean(0)
    variance = (variances + (means - mean) ** 2).mean(0)
    _follow(norm, mean.detach(), variance.detach(), len(shares) * inputs.numel() // inputs.shape[1])
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    normalised = (inputs.float() - mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]
    return cast(Tensor, normalised.to(inputs.dtype))


def _moments(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of each channel, (C) and (C), in single precision."""
    variance, mean = torch.var_mean(inputs.float(), (0, 2, 3), correction=0)
    return mean, variance


def _follow(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: int) -> None:
    """Fold a batch of ``count`` values per channel into the running statistics, as nn.BatchNorm2d does."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.add_(1)
    share = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean, share)
    norm.running_var.lerp_(variance * count / max(1, count - 1), share)


class _Gather(torch.autograd.Function):
    """All processes' values, stacked; the gradient of a process's value is the sum of what all make of it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:  # noqa: ARG004  # torch's signature
        found = [torch.empty_like(value) for _ in range(distributed.get_world_size())]
        distributed.all_gather(found, value.contiguous())
        return torch.stack(found)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        total = gradient.contiguous().clone()
        distributed.all_reduce(total)
        return total[distributed.get_rank()]
