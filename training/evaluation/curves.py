"""Learning curves: loss and accuracy of every epoch of a run, as curves.csv, a figure and a section of the report.

Lightning's own CSVLogger does not serve here: it begins its file again when a run is resumed.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from training.evaluation.report.sections import Plot, Section
from training.fit.run import CURVES
from training.markdown import counted, percent
from training.plotting import ACCENT, INK, WARN, plain
from visionserve.errors import BundleError
from visionserve.files import atomic_write
from visionserve.model_card import ModelCard

EPOCH = "epoch"  # from 0, as in run.json and in the trackers
# Of several sources `val/accuracy_NAME` follows, of each.
COLUMNS = (EPOCH, "learning_rate", "train/loss", "train/accuracy", "val/loss", "val/accuracy")
CAPTION = (
    "Loss and accuracy of every epoch. Those of training are a mean over the epoch, on augmented and perhaps blended "
    "images, the loss with label smoothing; those of validation are of the averaged weights at its end, on images as "
    "served. So validation may be the better one"
)
Row = dict[str, float]


def read(path: Path) -> list[Row]:
    """Return a row per epoch; none without the file.

    Raises:
        BundleError: the file is not one that `write` has written.
    """
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    except (OSError, ValueError, TypeError) as error:
        raise BundleError(f"{path} is not a file of learning curves: {error}") from error
    if any(EPOCH not in row for row in rows):
        raise BundleError(f"{path} is not a file of learning curves: it has no column {EPOCH}")
    return rows


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write a line per epoch, as many digits as tell the numbers apart."""
    further = sorted({name for row in rows for name in row} - set(COLUMNS))
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *further], lineterminator="\n")
        writer.writeheader()
        writer.writerows(row | {EPOCH: int(row[EPOCH])} for row in rows)


def best(rows: Sequence[Row]) -> Row:
    """Return the epoch whose weights are kept: the most accurate on validation, of equal ones the lowest loss."""
    return max(rows, key=lambda row: (row["val/accuracy"], -row["val/loss"]))


def figure(rows: Sequence[Row], probe: float | None = None) -> Figure:
    """Draw loss and accuracy of at least one epoch; ``probe`` is the baseline's validation accuracy (0-1)."""
    drawn = Figure(figsize=(9.5, 3.8), layout="constrained")
    for axes, name in zip(drawn.subplots(1, 2), ("loss", "accuracy"), strict=True):
        _pair(axes, rows, name)
        if name == "accuracy":
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
            if probe is not None:
                axes.axhline(probe, color=INK, linewidth=1, linestyle=":", label="linear probe, validation")
    drawn.legend(
        *drawn.axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=8
    )
    kept = best(rows)
    title = f"best epoch: {int(kept[EPOCH])}, validation accuracy {percent(kept['val/accuracy'])}"
    drawn.suptitle(title, color=INK, fontsize=11)
    return drawn


def sections(bundle: Path, card: ModelCard) -> list[Section]:
    """Return the report's section on the run that a bundle comes from; none if the bundle has no curves."""
    rows = read(bundle / CURVES)
    if not rows:
        return []
    kept = best(rows)
    lines = [
        f"{counted(len(rows), 'epoch')}, numbered from 0; the best on validation is {int(kept[EPOCH])}, with an "
        f"accuracy of {percent(kept['val/accuracy'], 2)} and a loss of {kept['val/loss']:.3f}. The bundle's "
        f"`{CURVES}` has all numbers.",
    ]
    probe = card.provenance.get("baseline", {}).get("probe_val_accuracy")
    return [Section("Training", lines, plots=[Plot("curves", figure(rows, probe), CAPTION)])]


def _pair(axes: Axes, rows: Sequence[Row], name: str) -> None:
    marker = "o" if len(rows) < 40 else ""
    for split, words, colour in (("train", "training", WARN), ("val", "validation", ACCENT)):
        points = [(row[EPOCH], row[f"{split}/{name}"]) for row in rows if f"{split}/{name}" in row]
        axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=3, linewidth=1.5, label=words)
    axes.axvline(best(rows)[EPOCH], color=INK, linewidth=1, linestyle="--", label="best epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="epoch", ylabel=name)
    plain(axes)
