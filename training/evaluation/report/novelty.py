"""How well the served novelty separates images of other things from those of the labels."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from training.evaluation import intervals, metrics
from training.evaluation.evaluate import EvaluationData, predict, prepare
from training.evaluation.intervals import wilson
from training.evaluation.metrics import rounded
from training.evaluation.report.sections import Plot, Section
from training.markdown import interval, percent, table
from training.plotting import ACCENT, INK, PALE, WARN, plain
from visionserve.errors import BundleError
from visionserve.files import images_below

KEPT = 0.95  # the share of the validation images that the threshold accepts
_OTHERS = (WARN, "#5c6bc0", "#8d6e63", "#7b1fa2", "#546e7a", "#c0a000")


def section(data: EvaluationData, folders: Mapping[str, Path]) -> Section:
    """Compare a split's images with those of other things, anywhere below each of the named folders.

    Raises:
        BundleError: a folder holds no images, or one that does not decode.
    """
    validation = _validation(data)
    threshold = threshold_that_keeps(validation, KEPT)
    inside = data.predictions.novelty
    others = {name: _novelty(data, folder) for name, folder in folders.items()}
    sets = {name: compare(inside, outside, threshold) for name, outside in others.items()}
    figures = {
        "threshold": rounded(threshold),
        "kept_of_validation": _share(validation <= threshold),
        "kept": _share(inside <= threshold),
        "kept_interval": _wilson(inside <= threshold),
        "sets": sets,
    }
    headline = {name: figures[name] for name in ("threshold", "kept_of_validation", "kept", "kept_interval")}
    headline["auroc"] = {name: row["auroc"] for name, row in sets.items()}
    caption = "Share of images that a threshold would reject, by the threshold"
    plot = Plot("novelty", _draw(inside, others, threshold), caption)
    return Section("Novelty", _lines(data, figures), figures, "novelty", [plot], {"novelty": headline})


def some_images_below(folder: Path) -> list[Path]:
    """Return the image files anywhere below a folder, sorted; BundleError when there are none."""
    files = images_below(folder)
    if not files:
        raise BundleError(f"{folder} holds no images")
    return files


def threshold_that_keeps(novelty: np.ndarray, share: float) -> float:
    """Return the smallest of (N,) novelties that at least a share of them do not exceed."""
    return float(np.quantile(novelty, share, method="inverted_cdf"))


def compare(inside: np.ndarray, outside: np.ndarray, threshold: float) -> dict[str, Any]:
    """Return how far novelties (M,) of other things are from those of the labels' own images (N,).

    ``auroc`` is the area under the ROC curve; ``passed`` the share of other things accepted by the threshold that
    keeps 95 % of ``inside`` (the false positive rate at 95 %); ``turned_away`` the share above ``threshold``.
    """
    return {
        "photographs": len(outside),
        "novelty_mean": rounded(outside.mean()),
        "auroc": rounded(metrics.separation(inside, outside)),
        "auroc_interval": _rounded(intervals.area(inside, outside)),
        "passed": rounded(_passed(inside, outside)),
        "passed_interval": _rounded(intervals.below_quantile(inside, outside, KEPT)),
        "turned_away": _share(outside > threshold),
        "turned_away_interval": _wilson(outside > threshold),
    }


def _validation(data: EvaluationData) -> np.ndarray:
    """Return the novelty (M,) of the validation images, as served."""
    if data.split == "val":
        return data.predictions.novelty
    if data.validation is None:
        raise BundleError("the manifest has no val images, which the threshold of novelty is taken from")
    return data.validation.predictions.novelty


def _novelty(data: EvaluationData, folder: Path) -> np.ndarray:
    images = prepare(some_images_below(folder), data.classifier.preprocessing)
    return predict(data.classifier, images).novelty


def _passed(inside: np.ndarray, outside: np.ndarray) -> float:
    return float((outside <= threshold_that_keeps(inside, KEPT)).mean())


def _rounded(bounds: tuple[float, float]) -> list[float]:
    return [rounded(bound) for bound in bounds]


def _share(selected: np.ndarray) -> float:
    return rounded(selected.mean())


def _wilson(selected: np.ndarray) -> list[float]:
    return _rounded(wilson(int(selected.sum()), len(selected)))


def _lines(data: EvaluationData, figures: dict[str, Any]) -> list[str]:
    rows = [
        (
            name,
            row["photographs"],
            f"{row['auroc']:.3f} ({row['auroc_interval'][0]:.3f}-{row['auroc_interval'][1]:.3f})",
            f"{percent(row['passed'])} ({interval(row['passed_interval'])})",
            f"{percent(row['turned_away'])} ({interval(row['turned_away_interval'])})",
        )
        for name, row in figures["sets"].items()
    ]
    head = ["images of", "", "area under the ROC curve", "accepted when 95 % of the model's own are"]
    return [
        f"Novelty is a rank among the validation images, so a threshold of {figures['threshold']:.3f} accepts "
        f"{percent(figures['kept_of_validation'])} of them by construction; of the {data.split} images it accepts "
        f"{percent(figures['kept'])} ({interval(figures['kept_interval'])}).",
        "",
        *table([*head, f"rejected above {figures['threshold']:.3f}"], rows),
        "",
        "In brackets 95 % intervals: Wilson's, of the first two with the uncertainty of both sides.",
    ]


def _draw(inside: np.ndarray, others: Mapping[str, np.ndarray], threshold: float) -> Figure:
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    steps = np.linspace(0, 1, 401)
    axes.axvspan(threshold, 1, color=PALE, alpha=0.5, linewidth=0)
    for index, (name, values) in enumerate([("the labels' own", inside), *others.items()]):
        away = 1 - np.searchsorted(np.sort(values), steps, side="right") / len(values)
        colour = ACCENT if index == 0 else _OTHERS[(index - 1) % len(_OTHERS)]
        axes.plot(steps, away, color=colour, linewidth=2, label=f"{name} ({len(values)})")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="novelty", ylabel="share of the images above it")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(loc="lower left", frameon=False, fontsize=8, labelcolor=INK)
    axes.set_title(f"What novelty rejects; shaded: above the threshold of {threshold:.2f}", color=INK, fontsize=11)
    plain(axes)
    return figure
