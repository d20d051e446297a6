"""The network in training: loss, learning rates, frozen parts and the weight average that is validated and shipped."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel
from torchmetrics.classification import MulticlassAccuracy

from training.data.augment import blend
from training.data.datamodule import Batch
from training.fit.distillation import DistillationLoss
from training.recipe import Optimizer, Recipe
from visionserve.errors import BundleError
from visionserve.network import MEAN, STD, Normalisation, adopt_widths, build, head


class Classification(LightningModule):
    """Trains a torchvision network on uint8 batches (B, S, S, 3); ``average`` holds the weights to keep."""

    def __init__(self, recipe: Recipe, classes: int, weights: Mapping[str, Tensor] | None = None) -> None:
        """Build the network; ``weights`` for our normalisation replace all random ones except the head's."""
        super().__init__()
        self.recipe = recipe
        self.network = build(recipe.architecture, classes)
        if weights is not None and Path(recipe.init).is_dir():
            adopt_widths(self.network, weights)
            self.network.load_state_dict(weights)  # a finished network: its head is for the same labels
        elif weights is not None:
            load_body(self.network, weights)
        if recipe.machine.processes > 1 and torch.cuda.is_available():
            from timm.layers.norm_act import convert_sync_batchnorm  # torch's own does not know timm's norms

            self.network = convert_sync_batchnorm(self.network)  # type: ignore[no-untyped-call]
        self.network.to(memory_format=torch.channels_last)
        self.average = AveragedModel(
            self.network, multi_avg_fn=_averaging(recipe.optimizer.average_decay), use_buffers=True
        )
        self.average.requires_grad_(False)
        self.normalise = Normalisation(MEAN, STD)
        self.distillation = DistillationLoss(recipe.teacher)
        self.train_accuracy = MulticlassAccuracy(classes, average="micro")
        self.val_accuracy = MulticlassAccuracy(classes, average="micro")
        self.validated: dict[str, int] = {}  # source -> its validation images, in the order in which they come
        self._right: list[Tensor] = []

    def begin_with(self, change: Callable[[nn.Module], None]) -> None:
        """Change the network before training, and its average with it."""
        change(self.network)
        change(self.average.module)

    def prepare(self, images: Tensor) -> Tensor:
        """Return the network's input, (B, 3, S, S) float in channels_last order."""
        inputs: Tensor = self.normalise(images.permute(0, 3, 1, 2))
        return inputs.contiguous(memory_format=torch.channels_last)

    def on_train_epoch_start(self) -> None:
        """Freeze what the stage freezes; in the head's epochs, everything else.

        Dropout is seeded again: the random numbers of an epoch do not depend on where the run was resumed.
        """
        torch.manual_seed(_epoch_seed(self.recipe.seed, self.current_epoch, self.global_rank))
        self.average.eval()
        settings = self.recipe.optimizer
        head_only = self.current_epoch < settings.head_epochs
        freeze = self.recipe.stage(self.current_epoch).freeze
        last = head(self.network)
        self.network.requires_grad_(not head_only)
        self.network.train(not head_only)
        last.requires_grad_(True)
        for name in freeze:
            self.network.get_submodule(name).requires_grad_(False).eval()

    def training_step(self, batch: Batch) -> Tensor:
        """Return the loss of one batch, blended or not."""
        images, targets = batch
        mixed = blend(self.prepare(images), self.recipe.augment, _step_seed(self.recipe.seed, self.global_step))
        logits = self.network(mixed.images).float()
        smoothing = self.recipe.optimizer.label_smoothing
        loss: Tensor = mixed.share * cross_entropy(logits, targets, label_smoothing=smoothing)
        if mixed.share < 1:
            loss = loss + (1 - mixed.share) * cross_entropy(logits, targets[mixed.partner], label_smoothing=smoothing)
        share = self.distillation.share
        if share:
            loss = (1 - share) * loss + share * self.distillation.loss(mixed.images, logits)
        self.train_accuracy(logits, targets)
        self.log("train/loss", loss, prog_bar=True, on_step=False, on_epoch=True, sync_dist=True)
        self.log("train/accuracy", self.train_accuracy, on_step=False, on_epoch=True)
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        """Fold the new weights into the average."""
        self.average.update_parameters(self.network)

    def validation_step(self, batch: Batch) -> Tensor:
        """Measure the averaged weights; return their logits (B, C)."""
        images, targets = batch
        logits: Tensor = self.average(self.prepare(images)).float()
        self.log("val/loss", cross_entropy(logits, targets), on_epoch=True, prog_bar=True, sync_dist=True)
        if len(self.validated) > 1:
            self._right.append(logits.argmax(1) == targets)
        else:
            self.val_accuracy(logits, targets)
            self.log("val/accuracy", self.val_accuracy, on_epoch=True, prog_bar=True)
        return logits

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation."""
        self._right = []

    def on_validation_epoch_end(self) -> None:
        """Of several sources, log the accuracy of each; ``val/accuracy`` is their mean: none outweighs another."""
        if len(self.validated) < 2:
            return
        parts = torch.split(torch.cat(self._right).float(), [*self.validated.values()])
        accuracies = torch.stack([part.mean() for part in parts])
        for name, accuracy in zip(self.validated, accuracies, strict=True):
            self.log(f"val/accuracy_{name}", accuracy, sync_dist=True)
        self.log("val/accuracy", accuracies.mean(), prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer with a faster head, and no weight decay on biases and norms, and the rate's schedule."""
        settings = self.recipe.optimizer
        optimizer = make_optimizer(
            settings, _groups(self.network, settings.learning_rate, settings.head_factor, settings.weight_decay)
        )
        total = max(1, int(self.trainer.estimated_stepping_batches))
        schedule = LambdaLR(optimizer, lambda step: rate(step / total, settings))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def weights(self) -> dict[str, Tensor]:
        """Return the averaged weights as a torchvision state dict."""
        return {name: tensor.detach().clone() for name, tensor in self.average.module.state_dict().items()}


def rate(progress: float, settings: Optimizer) -> float:
    """Return the share of the learning rate at ``progress`` (0-1) of the run: linear rise, then the schedule."""
    warmup = settings.warmup
    if progress < warmup:
        return max(progress / warmup, 0.01)
    if settings.schedule == "constant":
        return 1.0
    if settings.schedule == "step":
        return settings.factor ** min(2, int(3 * progress))
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / max(1e-9, 1 - warmup))))


def load_body(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load published weights, except those of the head, whose labels are not ours."""
    last = head(network)
    head_ids = {id(parameter) for parameter in last.parameters()}
    skipped = {name for name, parameter in network.named_parameters() if id(parameter) in head_ids}
    try:
        result = network.load_state_dict({n: t for n, t in weights.items() if n not in skipped}, strict=False)
    except RuntimeError as error:  # torch's list of all tensors of another size
        raise BundleError(f"the weights do not fit the network: {str(error).splitlines()[-1].strip()}") from error
    missing = [name for name in result.missing_keys if name not in skipped and not name.endswith("num_batches_tracked")]
    if missing or result.unexpected_keys:
        raise BundleError(f"the weights do not fit the network: {(missing + result.unexpected_keys)[0]}")


def compile_network(network: nn.Module) -> None:
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
    network.compile(dynamic=False)  # every size of image has its own code: there are few, and it is faster


def make_optimizer(settings: Optimizer, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Return the optimizer that the recipe names, for parameter groups with a rate and a decay of their own."""
    if settings.name == "sgd":
        return torch.optim.SGD(groups, momentum=settings.momentum, nesterov=settings.momentum > 0)
    kind = torch.optim.Adam if settings.name == "adam" else torch.optim.AdamW
    return kind(groups, betas=(float(settings.momentum), settings.second_moment))


def _groups(network: nn.Module, learning_rate: float, head_factor: float, decay: float) -> list[dict[str, Any]]:
    head_ids = {id(parameter) for parameter in head(network).parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        key = (learning_rate * (head_factor if id(parameter) in head_ids else 1), decay if parameter.ndim > 1 else 0.0)
        groups.setdefault(key, []).append(parameter)
    return [{"params": group, "lr": lr, "weight_decay": wd} for (lr, wd), group in groups.items()]


def _averaging(decay: float) -> Any:
    """Return AveragedModel's update: an exponential average that follows faster while it is young."""

    def update(average: list[Tensor], current: list[Tensor], updates: Tensor) -> None:
        count = int(updates)
        weight = 1 - min(decay, (1 + count) / (10 + count))
        if average[0].is_floating_point():
            torch._foreach_lerp_(average, current, weight)
        else:
            for old, new in zip(average, current, strict=True):
                old.copy_(new)  # counters

    return torch.no_grad()(update)


def _epoch_seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _step_seed(seed: int, step: int) -> int:
    return seed * 1_000_003 + step


def _trial(values: torch.Tensor) -> torch.Tensor:
    return values.sin() + values
