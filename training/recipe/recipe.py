"""A whole recipe: its sections, what must hold between them, and what follows from the size of the data."""

from dataclasses import dataclass, field, replace
from typing import Literal

from training.recipe.data import SERVED, Data
from training.recipe.environment import Machine, Tracking
from training.recipe.optimization import Augment, Input, Optimizer, Stage, Teacher
from visionserve.errors import BundleError
from visionserve.model_card import check_name

PrecisionName = Literal["auto", "bf16-mixed", "16-mixed", "32-true"]


@dataclass(frozen=True)
class Recipe:
    """A whole training run.

    Attributes:
        name: of the model and of its bundle.
        architecture: a network of torchvision, or of timm as ``timm/NAME``, that ends in a linear layer; it has
            heatmaps where that layer follows a global average pool.
        init: ``torchvision`` downloads ImageNet weights, ``none`` starts at random, a bundle's folder goes on from its
            weights and widths, head included; anything else is a safetensors file with a torchvision state dict for
            ImageNet's normalisation.
        init_note: what the card adds to the name and digest of the initial weights, such as where they come from.
        data_note: what the images are, for the card; left out when empty.
        licence: of the resulting weights, for the card; left out when empty.
        init_share: of a bundle's weights in those that are kept, the rest being those of the best epoch: fine-tuned
            networks forget less of what their start was good at (WiSE-FT, arXiv 2109.01903).
        probe: first fit a logistic regression on the initial network's features: training begins with its head, and
            keeps it if no epoch is better on validation. For small data sets; not for random weights.
        least_steps: epochs, and with them the patience, are multiplied until the run has this many steps: a small data
            set has few in an epoch. 0 takes the epochs as they are.
        patience: epochs without a better validation accuracy before the run stops early.
        stages: progressive resizing; the last one must reach 1.
    """

    name: str = "flowers"
    version: str = "1.0"
    architecture: str = "resnet18"
    init: str = "torchvision"
    init_note: str = ""
    data_note: str = ""
    licence: str = ""
    seed: int = 1
    epochs: int = 30
    batch_size: int = 64
    least_steps: int = 0
    patience: int = 15
    init_share: float = 0.0
    probe: bool = False
    precision: PrecisionName = "auto"
    data: Data = field(default_factory=Data)
    input: Input = field(default_factory=Input)
    augment: Augment = field(default_factory=Augment)
    optimizer: Optimizer = field(default_factory=Optimizer)
    teacher: Teacher = field(default_factory=Teacher)
    machine: Machine = field(default_factory=Machine)
    tracking: Tracking = field(default_factory=Tracking)
    stages: tuple[Stage, ...] = (Stage(until=1.0, size=176),)

    def __post_init__(self) -> None:
        for entry in ("name", "version"):
            if not SERVED.fullmatch(getattr(self, entry)):
                raise BundleError(
                    f"{entry} {getattr(self, entry)!r} cannot be served, because it is part of an address: use "
                    "at most 100 letters, digits, '-', '_' and '.', beginning with a letter or digit"
                )
        check_name(self.name)
        if min(self.least_steps, self.optimizer.full_rate_images) < 0:
            raise BundleError("least_steps and optimizer.full_rate_images are at least 0")
        if self.epochs < 1 or self.batch_size < 2:
            raise BundleError("a recipe needs at least one epoch and two images per batch")
        if min(self.machine.devices, self.machine.nodes) < 1 or self.optimizer.clip < 0:
            raise BundleError("machine.devices and machine.nodes are at least 1, optimizer.clip at least 0")
        processes = self.machine.processes
        if processes > 1 and self.batch_size % (2 * processes):
            raise BundleError(
                f"batch_size {self.batch_size} is that of all {processes} processes together and must give each the "
                f"same even number of images: take a multiple of {2 * processes}"
            )
        if not 0 <= self.init_share < 1:
            raise BundleError(f"init_share is at least 0 and below 1, not {self.init_share}")
        if self.probe and self.data.more:
            raise BundleError("probe knows one source: set it to false with data.more")
        ends = [stage.until for stage in self.stages]
        if not ends or ends != sorted(ends) or ends[0] <= 0 or ends[-1] != 1.0:
            raise BundleError(f"the stages must end in rising order, the last one at 1.0, not {ends}")
        if not 0 < self.input.crop <= 1:
            raise BundleError(
                f"input.crop is a share of the shorter side, above 0 and at most 1, not {self.input.crop}"
            )

    def sized(self, images: int) -> "Recipe":
        """Return the recipe with the epochs, patience and rate that so many training images get, as it is trained.

        Random weights have no probe: their features say nothing.
        """
        steps = self.epochs * max(1, images // self.batch_size)
        factor = max(1, -(-self.least_steps // steps))
        full = self.optimizer.full_rate_images
        rate = self.optimizer.learning_rate * (min(1.0, images / full) ** 0.5 if full else 1.0)
        optimizer = replace(self.optimizer, learning_rate=rate)
        epochs, patience, probe = self.epochs * factor, self.patience * factor, self.probe and self.init != "none"
        return replace(self, epochs=epochs, patience=patience, probe=probe, optimizer=optimizer)

    def stage(self, epoch: int) -> Stage:
        """Return the stage of ``epoch``, counted from 0; the last stage goes on for ever."""
        done = (epoch + 0.5) / self.epochs
        return next((stage for stage in self.stages if done < stage.until), self.stages[-1])
