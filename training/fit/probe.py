"""Linear probe: a logistic regression on what the initial network says of the images, the baseline of a run.

Training begins with its head (linear probing, then fine-tuning: Kumar et al. 2022, arXiv 2202.10054); what a run keeps
is never less accurate than it on validation (`training.fit.selection`).
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from training.data.datamodule import VAL_BATCH, served
from training.data.manifest import Manifest
from visionserve.files import atomic_write
from visionserve.network import MEAN, STD, Normalisation, head
from visionserve.transforms import Preprocessing

FILE_NAME = "probe.safetensors"
STRENGTHS = (0.0003, 0.003, 0.03, 0.3)  # inverse regularisation, of standardised features; the best on validation


@dataclass(frozen=True)
class Probe:
    """A linear head, weight (C, F) and bias (C,), with its accuracy (0-1) and cross entropy on validation.

    ``test_right`` of ``test_images`` are what a report states as the baseline; nothing is chosen by them.
    ``val_right`` (N,) bool says which validation images it gets right; a run of an earlier revision has none.
    """

    weight: Tensor
    bias: Tensor
    accuracy: float
    loss: float
    test_right: int = 0
    test_images: int = 0
    val_right: Tensor | None = None

    def install(self, network: nn.Module) -> None:
        """Put it in the place of the network's head."""
        last = head(network)
        with torch.no_grad():
            last.get_parameter("weight").copy_(self.weight)
            last.get_parameter("bias").copy_(self.bias)

    def save(self, folder: Path) -> None:
        """Write probe.safetensors."""
        names = ("accuracy", "loss", "test_right", "test_images")
        figures = {name: torch.tensor(getattr(self, name)) for name in names}
        with atomic_write(folder / FILE_NAME) as unfinished:
            right = {} if self.val_right is None else {"val_right": self.val_right}
            save_file({"weight": self.weight, "bias": self.bias} | figures | right, unfinished)


def load(folder: Path) -> Probe:
    """Read the probe of a run."""
    content = load_file(folder / FILE_NAME)
    accuracy, loss = float(content["accuracy"]), float(content["loss"])
    right, images = (int(content[name]) if name in content else 0 for name in ("test_right", "test_images"))
    return Probe(content["weight"], content["bias"], accuracy, loss, right, images, content.get("val_right"))


def fit(network: nn.Module, manifest: Manifest, preprocessing: Preprocessing) -> Probe:
    """Fit the probe of a network on the training images, as they are served; its strength is chosen on validation."""
    (train, train_targets), (val, val_targets) = (
        (_features(network, images), targets)
        for images, targets in (served(manifest, split, preprocessing) for split in ("train", "val"))
    )
    mean, deviation = train.mean(0), train.std(0) + 1e-6
    probes = []
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=2000).fit((train - mean) / deviation, train_targets)
        weight, bias = model.coef_, model.intercept_
        if len(weight) == 1:  # two labels: one row, for the second
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        scaled = torch.from_numpy(weight / deviation).float().contiguous()
        shifted = torch.from_numpy(bias - (weight / deviation) @ mean).float()
        probes.append(_measured(scaled, shifted, val, val_targets))
    best = max(probes, key=lambda probe: (probe.accuracy, -probe.loss))
    images, test_targets = served(manifest, "test", preprocessing)
    right = round(_measured(best.weight, best.bias, _features(network, images), test_targets).accuracy * len(images))
    return replace(best, test_right=right, test_images=len(images))


def _measured(weight: Tensor, bias: Tensor, features: np.ndarray, targets: np.ndarray) -> Probe:
    logits, expected = torch.from_numpy(features).float() @ weight.T + bias, torch.from_numpy(targets)
    right = logits.argmax(1) == expected
    return Probe(weight, bias, float(right.float().mean()), float(cross_entropy(logits, expected)), val_right=right)


def _features(network: nn.Module, images: np.ndarray) -> np.ndarray:
    """Return what the head of a network gets for images (N, S, S, 3): (N, F)."""
    pieces: list[Tensor] = []
    hook = head(network).register_forward_pre_hook(lambda _, inputs: pieces.append(inputs[0].flatten(1)))
    normalise, training = Normalisation(MEAN, STD), network.training
    network.eval()
    try:
        with torch.no_grad():
            for first in range(0, len(images), VAL_BATCH):
                network(normalise(torch.from_numpy(images[first : first + VAL_BATCH]).permute(0, 3, 1, 2)))
    finally:
        hook.remove()
        network.train(training)
    return torch.cat(pieces).double().numpy()
