"""The images of a run: their sources, how they are divided, and what happens to files that cannot be read."""

import re
from dataclasses import dataclass, field
from typing import Literal

from visionserve.errors import BundleError

SourceName = Literal["flowers102", "cub200", "cats-and-dogs", "imagefolder", "labels-csv"]
SplitName = Literal["stratified", "given", "given-test", "by-group"]
# Names and versions that torch-model-archiver, URLs and, with what is appended to them, file systems take.
SERVED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


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
                f"the shares of validation and test, such as 0.15, are above 0 and leave some to train on, not "
                f"{self.val:g} and {self.test:g}"
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
        if not SERVED.fullmatch(self.name):
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
