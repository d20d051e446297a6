"""Prune: remove the least important channels of a finished network, whole ones, so that any engine is faster.

The groups of layers that must lose the same channels (a block's convolutions, the additions between blocks) are found
by torch-pruning (arXiv 2301.12900). A channel's importance is the first-order estimate of the loss without
it (Taylor, arXiv 1906.10771), compared among layers of the same kind (arXiv 2407.04616). The result needs
fine-tuning.
"""

import shutil
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from training.data import manifest as manifests
from training.data.datamodule import load_served
from training.data.manifest import SEEN
from training.evaluation import evaluate
from training.networks import load_network
from visionserve.engines import WEIGHTS
from visionserve.errors import BundleError
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import ModelCard
from visionserve.network import Normalisation, adopt_widths, build, head
from visionserve.transforms import Preprocessing

IMAGES = 512  # of the training split, whose gradients estimate importance
MULTIPLE = 16  # of channels: what the integer units of processors (AVX-512 VNNI, AMX) take at once
_MOST = 0.7  # share of its channels that a single layer may lose


def prune_bundle(bundle: Path, root: Path, output: Path, ratio: float, multiple: int = MULTIPLE) -> nn.Module:
    """Write the card, manifest and weights of a narrower network to ``output``, for `fit --init`; return the network.

    Args:
        root: folder of the manifest's images.
        ratio: see `prune`.

    Raises:
        BundleError: the bundle or its images cannot be used, or the network cannot be pruned.
    """
    card = ModelCard.load(bundle / CARD)
    manifest = manifests.load(bundle / manifests.FILE_NAME, root, card.labels)
    indices = np.random.default_rng(0).permutation(manifest.part("train"))[:IMAGES]
    files = [root / manifest.rows[index].path for index in indices]
    images = load_served(files, Preprocessing(card.input.size, card.input.crop))
    targets = np.array(manifest.targets())[indices]
    batches = zip(evaluate.batches(images), evaluate.batches(targets), strict=True)
    normalise = Normalisation(card.input.mean, card.input.std)
    inputs = ((normalise(torch.from_numpy(i).permute(0, 3, 1, 2)), torch.from_numpy(t)) for i, t in batches)
    network = prune(load_network(bundle), card.architecture, inputs, ratio, multiple)
    output.mkdir(parents=True, exist_ok=True)
    replace(card, metrics={}, parts=None).save(output / CARD)
    manifest.save(output / manifests.FILE_NAME)
    if (bundle / SEEN).is_file():
        shutil.copy(bundle / SEEN, output / SEEN)
    save_file({n: t.contiguous() for n, t in network.state_dict().items()}, output / WEIGHTS)
    return network


def prune(
    network: nn.Module, architecture: str, batches: Iterable[tuple[Tensor, Tensor]], ratio: float, multiple: int
) -> nn.Module:
    """Return a narrower network; ``network`` itself is changed.

    Args:
        batches: the network's input (B, 3, S, S) with label indices (B,).
        ratio: share of the channels to remove, between 0 and 1; the work falls by about twice that.
        multiple: every layer keeps a multiple of so many channels.

    Raises:
        BundleError: an impossible ratio, or a network whose layers cannot be narrowed one by one.
    """
    if not 0 < ratio < 1:
        raise BundleError(f"ratio is the share of channels to remove, above 0 and below 1, not {ratio}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the library's own imports
        import torch_pruning as pruning  # seconds to import
    for inputs, targets in batches:
        cross_entropy(network(inputs), targets, reduction="sum").backward()  # type: ignore[no-untyped-call]
    example = inputs[:1]
    try:
        pruning.pruner.BasePruner(
            network,
            example,
            importance=pruning.importance.GroupTaylorImportance(),
            pruning_ratio=ratio,
            max_pruning_ratio=_MOST,
            global_pruning=True,
            isomorphic=True,
            round_to=multiple,
            ignored_layers=[head(network)],
        ).step()
    except Exception as error:  # what the library does not understand fails in many ways
        raise BundleError(f"{architecture} cannot be pruned ({error}); prune another network") from error
    return _rebuilt(network, architecture, example)


def _rebuilt(pruned: nn.Module, architecture: str, example: Tensor) -> nn.Module:
    """Return the network that the state dict alone makes, which is how a bundle loads it; its outputs must be equal."""
    weights = pruned.state_dict()
    rebuilt = build(architecture, head(pruned).out_features).eval()
    adopt_widths(rebuilt, weights)
    try:
        rebuilt.load_state_dict(weights)
        with torch.inference_mode():
            same = torch.allclose(rebuilt(example), pruned(example), rtol=1e-3, atol=1e-4)
    except RuntimeError:
        same = False
    if not same:
        raise BundleError(f"{architecture} cannot be pruned (its widths alone do not make it); prune another network")
    return rebuilt
