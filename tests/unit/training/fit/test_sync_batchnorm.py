"""Batch norms of several processes: two that hold half a batch each compute what one computes with all of it."""

import copy
import multiprocessing
from pathlib import Path

import pytest
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, distributed, nn

from training.fit import sync_batchnorm

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
BATCH = torch.rand(8, 3, 6, 5, generator=torch.Generator().manual_seed(1)) * 3 - 1


def _network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 5, 2), BatchNormAct2d(5), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(30, 2))


def _learn(network: nn.Module, images: Tensor) -> nn.Module:
    """Give every parameter its gradient of a loss over ``images``."""
    (network(images).square().mean() + network(images).mean()).backward()
    return network


def _half(rank: int, place: Path) -> nn.Module:
    distributed.init_process_group("gloo", init_method=f"file://{place}/store", rank=rank, world_size=2)
    try:
        network = sync_batchnorm.synchronise(_network(), cuda=False)
        _learn(network, BATCH[4 * rank : 4 * rank + 4])
        for parameter in network.parameters():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            distributed.all_reduce(gradient)
            parameter.grad = gradient / 2  # as DDP does
        return network
    finally:
        distributed.destroy_process_group()


def test_two_halves_give_the_gradients_and_statistics_of_the_whole(tmp_path: Path) -> None:
    other = multiprocessing.get_context("spawn").Process(target=_half, args=(1, tmp_path))
    other.start()
    shared = _half(0, tmp_path)
    other.join()
    assert other.exitcode == 0
    whole = _learn(_network(), BATCH)
    for (name, parameter), expected in zip(shared.named_parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, expected.grad, rtol=1e-4, atol=1e-6, msg=name)
    for (name, buffer), wanted in zip(shared.named_buffers(), whole.named_buffers(), strict=True):
        torch.testing.assert_close(buffer, wanted[1], rtol=1e-5, atol=1e-6, msg=name)
    with torch.no_grad():
        torch.testing.assert_close(shared.eval()(BATCH), whole.eval()(BATCH), rtol=1e-4, atol=1e-5)


def test_the_state_keeps_its_names() -> None:
    for cuda in (False, True):
        network = _network()
        before = copy.deepcopy(network.state_dict())
        after = sync_batchnorm.synchronise(network, cuda=cuda).state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
