"""The recipe of a training run: every choice that changes the result, typed, with the reason for its default.

Read from YAML by jsonargparse (training/__main__.py), so an unknown key is an error. Precedence, highest first: command
line, environment, file.
"""

import argparse
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from visionserve.errors import BundleError
from visionserve.files import write_text
from visionserve.model_card import check_name

SourceName = Literal["flowers102", "cub200", "cats-and-dogs", "imagefolder", "labels-csv"]
SplitName = Literal["stratified", "given", "given-test", "by-group"]
OptimizerName = Literal["sgd", "adam", "adamw"]
PrecisionName = Literal["auto", "bf16-mixed", "16-mixed", "32-true"]
RENAMED = {"optimiser": "optimizer", "data.broken": "data.corrupt"}  # entries: former name -> name
TrackerName = Literal["tensorboard", "mlflow", "wandb", "none"]


_SERVED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # names and versions that torch-model-archiver and URLs take


@dataclass(frozen=True)
class LabelsCsv:
    """How a ``labels-csv`` source says what its images show: a CSV file with a line per image.

    Attributes:
        name: of the CSV file, below the root.
        folder: of the images, below the root.
        file: column with the image's path below ``folder``; ``.jpg`` may be left out there.
        label: column with the label's name.
        index: column with the label's position, from 0; read where the column ``label`` is missing, and for the order.
        accept: column with further labels that count as right, names or positions between semicolons.
        group: column with what an image comes from, such as a website or a camera: ``by-group`` divides by it.
        split: column with train, val or test, for the splits ``given`` and ``given-test``.
    """

    name: str = "labels.csv"
    folder: str = ""
    file: str = "file"
    label: str = "label"
    index: str = "index"
    accept: str = "accept"
    group: str = "source"
    split: str = "split"


@dataclass(frozen=True)
class Shares:
    """What of the images, or of their groups, validates and what tests; the rest is trained on."""

    val: float = 0.1
    test: float = 0.1

    def __post_init__(self) -> None:
        if min(self.val, self.test) <= 0 or self.val + self.test >= 1:
            raise BundleError(
                f"the shares of validation and test are above 0 and leave some to train on, not {self.val:g} and "
                f"{self.test:g}"
            )

    def side(self, number: float) -> Literal["train", "val", "test"]:
        """Return the split of an image with this number of 0-1: the lowest test, the next validate."""
        return "test" if number < self.test else "val" if number < self.test + self.val else "train"


@dataclass(frozen=True)
class Source:
    """Further images to learn from and to measure on, with labels of the first source (``data.more``).

    Attributes:
        name: for files and figures; the validation accuracy of each source is logged under its name.
        source: layout of the folder.
        root: the folder; ``--data.roots.NAME FOLDER`` wins over it.
        weight: how often an epoch shows each training image; 0.5 shows a random half of them.
        split: as in ``data.split``; ``by-group`` has no group of images on two sides.
        held_out: share of the groups that validate, and as many again test, with ``by-group``.
        seed: of the split.
        manifest: a split that was written once, to be used again.
        csv: of a ``labels-csv`` source.
    """

    name: str
    source: SourceName = "labels-csv"
    root: str | None = None
    weight: float = 1.0
    split: SplitName = "by-group"
    held_out: float = 0.1
    seed: int = 1
    manifest: str | None = None
    csv: LabelsCsv = field(default_factory=LabelsCsv)

    def __post_init__(self) -> None:
        if not _SERVED.fullmatch(self.name):
            raise BundleError(
                f"data.more: {self.name!r} is not a name for a source: use letters, digits, '-', '_', '.'"
            )
        if self.weight <= 0 or not 0 < self.held_out < 0.5:
            raise BundleError(f"data.more: {self.name} needs a weight above 0 and held_out between 0 and 0.5")


@dataclass(frozen=True)
class Data:
    """Where the images are and how they are divided.

    Attributes:
        source: layout of the folder.
        root: the folder; None downloads what the source publishes.
        split: ``stratified`` divides every image on disk per label as ``shares`` says; ``given`` takes the source's
            own split (the official split of Oxford 102, or train/val/test folders); ``given-test`` its test split
            only, and ``shares.val`` of the others per label validate; ``by-group`` divides the groups of a
            ``labels-csv`` source as ``shares`` says, so that no group is on two sides.
        shares: of validation and test, 0.1 each; ``{val: 0.15, test: 0.15}`` divides 70/15/15.
        seed: of the stratified split; kept apart from the run's seed so that runs can be compared.
        manifest: a split that was written once, to be used again instead of a new one; ``split``, ``shares`` and
            ``seed`` are then of no account.
        corrupt: images that do not decode end the run, or are left out and listed in its folder.
        cache_side: images wait in memory with this shorter side at most, in pixels.
        workers: processes that augment where a CPU trains; 0 does it in the training process.
        gpu_workers: the same where a GPU trains and would wait: for each GPU, at most its share of the cores.
        cache: keep decoded images on disk; off, every epoch decodes the JPEGs again, to the same pixels.
        csv: of a ``labels-csv`` source.
        weight: how often an epoch shows each training image; 0.5 shows a random half of them.
        more: further sources to learn from, with labels of this one.
        roots: name of a further source -> its folder.
    """

    source: SourceName = "flowers102"
    root: str | None = None
    split: SplitName = "stratified"
    shares: Shares = field(default_factory=Shares)
    seed: int = 1
    manifest: str | None = None
    corrupt: Literal["error", "skip"] = "error"
    cache_side: int = 256
    workers: int = 2
    gpu_workers: int = 8
    cache: bool = True
    csv: LabelsCsv = field(default_factory=LabelsCsv)
    weight: float = 1.0
    more: tuple[Source, ...] = ()
    roots: dict[str, str] = field(default_factory=dict)

    def loading_processes(self, processes: int, *, cuda: bool, cores: int) -> int:
        """Return how many processes augment for each of the ``processes`` that train."""
        return min(self.gpu_workers, cores // processes) if cuda else self.workers

    def __post_init__(self) -> None:
        names = [source.name for source in self.more]
        if self.weight <= 0 or len(set(names)) < len(names):
            raise BundleError("data.weight must be above 0, and each of data.more needs a name of its own")
        unknown = sorted(set(self.roots) - set(names))
        if unknown:
            raise BundleError(
                f"data.roots names {unknown[0]}, which is not among data.more ({', '.join(names) or '-'})"
            )


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


@dataclass(frozen=True)
class Machine:
    """What the run may use; with the same global batch the result does not depend on it.

    Attributes:
        devices: processes per node, each with a GPU where there are any.
        nodes: machines; the launcher (torchrun, a PyTorchJob) tells each which it is.
        compile: fuse the network's step with torch.compile: minutes at the start, faster steps afterwards.
    """

    devices: int = 1
    nodes: int = 1
    compile: bool = False

    @property
    def processes(self) -> int:
        """All of them, on all machines."""
        return self.devices * self.nodes


@dataclass(frozen=True)
class Tracking:
    """Where a run's figures and images are kept besides its folder.

    Attributes:
        tracker: TensorBoard writes below the run's folder; MLflow and Weights & Biases as ``uri`` and ``offline`` say.
        uri: of the MLflow server or store; None is a local store beside the run.
        project: MLflow's experiment, Weights & Biases' project.
        offline: Weights & Biases writes to disk only, to be sent with ``wandb sync``.
    """

    tracker: TrackerName = "tensorboard"
    uri: str | None = None
    project: str = "visionserve"
    offline: bool = True

    def __post_init__(self) -> None:
        # It is written into the run's files, and a process list shows it.
        if self.uri is not None and "@" in urlsplit(self.uri).netloc:
            raise BundleError(
                "tracking.uri must not hold a user or a password: set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, in the environment"
            )


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
            if not _SERVED.fullmatch(getattr(self, entry)):
                raise BundleError(
                    f"{entry} {getattr(self, entry)!r} cannot be served, because it is part of an address: use "
                    "letters, digits, '-', '_' and '.', beginning with a letter or digit"
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


class RecipeParser(ArgumentParser):
    """Reads the file behind ``--config`` first, then ``TRAIN_*`` variables, then the other options: the last wins.

    jsonargparse by itself would let the file win over the environment.
    """

    def parse_args(  # type: ignore[override]  # argparse declares overloads
        self, args: Sequence[str] | None = None, *rest: Any, **settings: Any
    ) -> Namespace:
        """Parse the command line; a file that does not exist or an entry's former name is a usage error."""
        first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        first.add_argument("-c", "--config")
        config, others = first.parse_known_args(args)
        former = _former_option([*others, *os.environ])
        if config.config is not None:
            if not Path(config.config).is_file():
                self.error(f"recipe {config.config} does not exist")
            former = former or _former_entry(Path(config.config).read_text(encoding="utf-8"))
            self.default_config_files = [config.config]
        if former:
            self.error(former)
        return super().parse_args(others, *rest, **settings)


def parser() -> RecipeParser:
    """Return a parser with ``--config`` and one option per entry of the recipe."""
    parser = RecipeParser(default_env=True, env_prefix="TRAIN")
    parser.add_argument("-c", "--config", help="a recipe in YAML; TRAIN_* variables and options win over it")
    parser.add_class_arguments(Recipe)
    return parser


def resolve(options: Namespace) -> Recipe:
    """Return the recipe among parsed options; an impossible one is a BundleError."""
    entries = Namespace(**{name: options[name] for name in _NAMES})  # type: ignore[no-untyped-call]
    values = _bare(exit_on_error=True).instantiate(entries)
    return Recipe(**{name: values[name] for name in _NAMES})


def save(recipe: Recipe, path: Path) -> None:
    """Write the resolved recipe as YAML that ``--config`` reads back."""
    write_text(path, text(recipe))


def text(recipe: Recipe) -> str:
    """Return the resolved recipe as YAML."""
    return yaml.safe_dump(plain(recipe), sort_keys=False)


def load(path: Path) -> Recipe:
    """Read a recipe from YAML; an unknown key or a wrong type is a BundleError."""
    bare = _bare(exit_on_error=False)
    try:
        content = path.read_text(encoding="utf-8")
        return resolve(bare.parse_string(content))
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    except ArgumentError as error:
        raise BundleError(f"{path} is not a valid recipe: {_former_entry(content) or error}") from error


def revise(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """Return the recipe with other values for entries such as ``optimizer.learning_rate`` or ``stages.0.size``.

    An unknown entry, a wrong type or an impossible recipe is a BundleError.
    """
    content = plain(recipe)
    for entry, new in changes.items():
        section, key = _find(content, entry)
        section[key] = new
    try:
        return resolve(_bare(exit_on_error=False).parse_object(content))
    except ArgumentError as error:
        raise BundleError(f"invalid recipe with {dict(changes)}: {' '.join(str(error).split())}") from error


def value(recipe: Recipe, entry: str) -> Any:
    """Return the value of an entry such as ``stages.0.size``; a BundleError when there is none."""
    section, key = _find(plain(recipe), entry)
    return section[key]


def plain(recipe: Recipe) -> dict[str, Any]:
    """Return lists and dictionaries only, as YAML wants them."""
    content: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    return content


def flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ``optimizer.clip``, 0.0 and so on for a recipe that is `plain`."""
    for name, value in content.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield from flat({str(index): entry for index, entry in enumerate(value)}, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _find(content: Any, entry: str) -> tuple[Any, str | int]:
    """Return the section or list that holds an entry, and its key there."""
    *above, last = (int(part) if part.isdecimal() else part for part in entry.split("."))
    try:
        for part in above:
            content = content[part]
        if isinstance(content, str) or isinstance(content[last], dict):
            raise TypeError("no entry but a word or a section")
    except (LookupError, TypeError) as error:
        raise BundleError(f"a recipe has no entry {entry}") from error
    return content, last


def _former_entry(content: str) -> str:
    """Return a sentence on the first entry of a YAML text that has another name now; an empty one if there is none."""
    try:
        entries = yaml.safe_load(content)
    except yaml.YAMLError:
        return ""  # the parser says what is wrong with it
    for former, now in RENAMED.items():
        section: Any = entries
        for part in former.split("."):
            section = section.get(part) if isinstance(section, dict) else None
        if section is not None:
            return _now_called(former, now)
    return ""


def _former_option(names: Sequence[str]) -> str:
    """Return the same for options and environment variables."""
    for former, now in RENAMED.items():
        variable = "TRAIN_" + former.upper().replace(".", "__")
        for name in names:
            if name.startswith((f"--{former}.", f"--{former}=", variable)) or name == f"--{former}":
                return _now_called(former, now)
    return ""


def _now_called(former: str, now: str) -> str:
    values = ", error or skip" if now == "data.corrupt" else ""
    return f"the entry `{former}` is now called `{now}`{values}"


_NAMES = tuple(entry.name for entry in fields(Recipe))


def _bare(exit_on_error: bool) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=exit_on_error)
    parser.add_class_arguments(Recipe)
    return parser
