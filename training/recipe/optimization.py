"""How the network learns: what it sees, how images are changed, the optimizer, the stages and the teachers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from visionserve.errors import BundleError

OptimizerName = Literal["sgd", "adam", "adamw"]


@dataclass(frozen=True)
class Input:
    """What the served network will see: a square of ``size`` pixels, ``crop`` of the image's shorter side."""

    size: int = 224
    crop: float = 0.875


@dataclass(frozen=True)
class Augment:
    """How training images are varied.

    Attributes:
        min_area: smallest share of the image that a random crop keeps.
        flip: share of the images that are mirrored left to right.
        flip_vertical: share of the images that are mirrored top to bottom, for what has no upper side.
        colour: largest change of brightness, contrast and saturation, as a share; a tenth of it of the hue.
        brightness, contrast, saturation, hue: its own largest change for one of them; None is what ``colour`` says.
        colour_probability: share of the images whose colours are changed.
        grey: share of the images that lose their colours.
        rotate: largest turn, in degrees.
        translate: largest shift, as a share of the side; what comes in is black.
        perspective: how far, as a share of half the side, corners move at most where an image is seen from aside.
        perspective_probability: share of the images that are.
        erase: share of the images of which a rectangle is made grey (random erasing, arXiv 1708.04896).
        shrink: share of the images that lose detail, as if they had been at most a third as large.
        blur: share of the images that are blurred.
        compress: share of the images that are stored as JPEG of a quality of 25-80, and read again.
        policy: automatic augmentation after crop and flip; TrivialAugment (arXiv 2103.10158) has nothing to tune.
        policy_probability: share of the images that the policy touches.
        mixup: probability that a batch is blended (arXiv 1710.09412).
        cutmix: probability that a batch swaps rectangles instead (arXiv 1905.04899).
    """

    min_area: float = 0.35
    flip: float = 0.5
    flip_vertical: float = 0.0
    colour: float = 0.0
    brightness: float | None = None
    contrast: float | None = None
    saturation: float | None = None
    hue: float | None = None
    colour_probability: float = 0.8
    grey: float = 0.0
    rotate: float = 0.0
    translate: float = 0.0
    perspective: float = 0.0
    perspective_probability: float = 0.5
    erase: float = 0.0
    shrink: float = 0.0
    blur: float = 0.0
    compress: float = 0.0
    policy: Literal["trivial", "rand", "none"] = "trivial"
    policy_probability: float = 1.0
    mixup: float = 0.1
    cutmix: float = 0.3

    def __post_init__(self) -> None:
        shares = (
            "flip",
            "flip_vertical",
            "colour_probability",
            "grey",
            "translate",
            "perspective",
            "erase",
            "perspective_probability",
            "shrink",
            "blur",
            "compress",
            "policy_probability",
            "mixup",
            "cutmix",
        )
        for name in shares:
            if not 0 <= getattr(self, name) <= 1:
                raise BundleError(f"augment.{name} is a share, 0 to 1, not {getattr(self, name):g}")
        if not 0 < self.min_area <= 1 or not 0 <= self.rotate <= 180:
            raise BundleError("augment.min_area is above 0 and at most 1, augment.rotate 0 to 180 degrees")
        brightness, contrast, saturation, hue = self.colours
        if min(brightness, contrast, saturation, hue) < 0 or hue > 0.5:
            raise BundleError(
                "augment.colour, brightness, contrast and saturation are at least 0, augment.hue is 0 to 0.5"
            )

    @property
    def colours(self) -> tuple[float, float, float, float]:
        """Largest changes of brightness, contrast, saturation and hue, as torchvision's ColorJitter takes them."""
        names = ("brightness", "contrast", "saturation", "hue")
        shared = (self.colour, self.colour, self.colour, self.colour / 10)
        own = (getattr(self, name) for name in names)
        brightness, contrast, saturation, hue = (
            one if one is not None else other for one, other in zip(own, shared, strict=True)
        )
        return brightness, contrast, saturation, hue


@dataclass(frozen=True)
class Stage:
    """Train at ``size`` pixels until this share (0-1] of the run's epochs is done.

    ``freeze`` names the parts of the network whose weights and batch-norm statistics stay as they are meanwhile; their
    backward pass is saved.
    """

    until: float
    size: int
    freeze: tuple[str, ...] = ()


@dataclass(frozen=True)
class Optimizer:
    """How the weights follow the gradient: by default SGD with Nesterov momentum, a linear warm-up, a cosine to zero.

    Attributes:
        name: ``sgd``; ``adam``, whose weight decay is part of the gradient; ``adamw``, whose weight decay is not.
        schedule: ``cosine`` falls to zero after the warm-up, ``constant`` stays, ``step`` is multiplied by ``factor``
            after every third of the epochs.
        factor: of ``step``.
        momentum: of SGD; of Adam and AdamW the decay of the gradient's average (beta 1).
        second_moment: decay of the average of its squares (beta 2); Adam and AdamW only.
        learning_rate: for the batch size of the recipe.
        head_factor: the new head learns this many times faster than the rest; 5 times diverged on the flowers.
        head_epochs: at first only the head learns, so that its random start does not damage the rest.
        warmup: share of the run in which the rate rises.
        average_decay: per-step decay of the weight average that is validated and shipped.
        clip: largest norm of a step's gradient; 0 leaves it as it is.
        full_rate_images: with fewer training images the rate falls with the square root of their number; 0 never.
    """

    name: OptimizerName = "sgd"
    schedule: Literal["cosine", "constant", "step"] = "cosine"
    factor: float = 0.1
    learning_rate: float = 0.02
    momentum: float = 0.9
    second_moment: float = 0.999
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    head_factor: float = 1.0
    head_epochs: int = 1
    warmup: float = 0.1
    average_decay: float = 0.998
    clip: float = 0.0
    full_rate_images: int = 0

    def __post_init__(self) -> None:
        if self.learning_rate <= 0 or self.weight_decay < 0:
            raise BundleError("optimizer.learning_rate is above 0 and optimizer.weight_decay at least 0")
        if not 0 <= self.momentum < 1 or not 0 <= self.second_moment < 1 or not 0 < self.factor <= 1:
            raise BundleError(
                "optimizer.momentum and optimizer.second_moment are at least 0 and below 1, optimizer.factor above 0 "
                "and at most 1"
            )


@dataclass(frozen=True)
class Teacher:
    """Finished networks whose outputs are learned from besides the labels (distillation, arXiv 1503.02531).

    Attributes:
        bundle: the folder of one, or of a run that ended, with the labels of this run; of any network. Several teach
            the mean of their log probabilities; none leaves the labels alone.
        size: pixels that they see; None is what the network in training sees, which one for a single size cannot take.
        share: of the loss that comes from the teacher, 0-1; the labels have the rest.
        temperature: softens both networks' outputs, so that the teacher's probabilities of the other labels count.
    """

    bundle: str | tuple[str, ...] | None = None
    share: float = 0.5
    temperature: float = 2.0
    size: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1 or self.temperature <= 0 or (self.size is not None and self.size < 1):
            raise BundleError(
                "teacher.share is 0 to 1, teacher.temperature above 0, teacher.size a number of pixels or null"
            )

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folder of each."""
        named = (self.bundle,) if isinstance(self.bundle, str) else self.bundle or ()
        return tuple(Path(folder) for folder in named)
