"""How well the served novelty tells photographs of other things from those of the labels."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from training.data.datamodule import served as served_images
from training.evaluation import metrics
from training.evaluation.bootstrap import RESAMPLES, SEED
from training.evaluation.evaluate import Evidence, answers, prepare
from training.evaluation.metrics import rounded
from training.evaluation.report.sections import Plot, Section
from training.markdown import interval, percent, table
from training.plotting import ACCENT, INK, PALE, WARN, plain
from visionserve.errors import BundleError
from visionserve.files import is_image

KEPT = 0.95  # the share of the validation photographs that the threshold lets through
_OTHERS = (WARN, "#5c6bc0", "#8d6e63", "#7b1fa2", "#546e7a", "#c0a000")


def section(evidence: Evidence, folders: Mapping[str, Path]) -> Section:
    """Compare a split's photographs with those of other things, anywhere below each of the named folders.

    Raises:
        BundleError: a folder holds no photographs, or one that does not decode.
    """
    validation = _validation(evidence)
    threshold = threshold_that_keeps(validation, KEPT)
    inside = evidence.served.novelty
    others = {name: _answers(evidence, folder) for name, folder in folders.items()}
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
    caption = "Share of photographs that a threshold would turn away, by the threshold"
    plot = Plot("novelty", _draw(inside, others, threshold), caption)
    return Section("Novelty", _lines(evidence, figures), figures, "novelty", [plot], {"novelty": headline})


def photographs_below(folder: Path) -> list[Path]:
    """Return the image files anywhere below a folder, sorted; BundleError when there are none."""
    files = sorted(path for path in folder.rglob("*") if is_image(path))
    if not files:
        raise BundleError(f"{folder} holds no photographs")
    return files


def threshold_that_keeps(novelty: np.ndarray, share: float) -> float:
    """Return the smallest of (N,) novelties that at least a share of them do not exceed."""
    return float(np.quantile(novelty, share, method="inverted_cdf"))


def compare(inside: np.ndarray, outside: np.ndarray, threshold: float) -> dict[str, Any]:
    """Return how far novelties (M,) of other things are from those of the labels' own photographs (N,).

    ``auroc`` is the area under the ROC curve; ``passed`` the share of other things let through by the threshold that
    keeps 95 % of ``inside`` (the false positive rate at 95 %); ``turned_away`` the share above ``threshold``.
    """
    intervals = _bootstrap(inside, outside)
    return {
        "photographs": len(outside),
        "novelty_mean": rounded(outside.mean()),
        "auroc": rounded(metrics.separation(inside, outside)),
        "auroc_interval": intervals[0],
        "passed": rounded(_passed(inside, outside)),
        "passed_interval": intervals[1],
        "turned_away": _share(outside > threshold),
        "turned_away_interval": _wilson(outside > threshold),
    }


def _validation(evidence: Evidence) -> np.ndarray:
    """Return the novelty (M,) of the validation photographs, as served."""
    if evidence.split == "val":
        return evidence.served.novelty
    if not evidence.manifest.part("val"):
        raise BundleError("the manifest has no val photographs, which the threshold of novelty is taken from")
    images, _ = served_images(evidence.manifest, "val", evidence.classifier.preprocessing)
    return answers(evidence.classifier, images).novelty


def _answers(evidence: Evidence, folder: Path) -> np.ndarray:
    images = prepare(photographs_below(folder), evidence.classifier.preprocessing)
    return answers(evidence.classifier, images).novelty


def _passed(inside: np.ndarray, outside: np.ndarray) -> float:
    return float((outside <= threshold_that_keeps(inside, KEPT)).mean())


def _bootstrap(inside: np.ndarray, outside: np.ndarray) -> list[list[float]]:
    """Return the 95 % intervals of the area and of the share that passes; both sides are drawn again."""
    generator = np.random.default_rng(SEED)
    found = []
    for _ in range(RESAMPLES):
        ours, theirs = (generator.choice(side, len(side)) for side in (inside, outside))
        found.append((metrics.separation(ours, theirs), _passed(ours, theirs)))
    return [[rounded(low), rounded(high)] for low, high in np.percentile(found, [2.5, 97.5], axis=0).T]


def _share(chosen: np.ndarray) -> float:
    return rounded(chosen.mean())


def _wilson(chosen: np.ndarray) -> list[float]:
    return [rounded(bound) for bound in metrics.wilson(int(chosen.sum()), len(chosen))]


def _lines(evidence: Evidence, found: dict[str, Any]) -> list[str]:
    rows = [
        (
            name,
            row["photographs"],
            f"{row['auroc']:.3f} ({row['auroc_interval'][0]:.3f}-{row['auroc_interval'][1]:.3f})",
            f"{percent(row['passed'])} ({interval(row['passed_interval'])})",
            f"{percent(row['turned_away'])} ({interval(row['turned_away_interval'])})",
        )
        for name, row in found["sets"].items()
    ]
    head = ["photographs of", "", "area under the ROC curve", "let through when 95 % of ours are kept"]
    return [
        f"Novelty is a rank among the validation photographs, so a threshold of {found['threshold']:.3f} keeps "
        f"{percent(found['kept_of_validation'])} of them by its making; of the {evidence.split} photographs it keeps "
        f"{percent(found['kept'])} ({interval(found['kept_interval'])}).",
        "",
        *table([*head, f"turned away above {found['threshold']:.3f}"], rows),
        "",
        f"In brackets 95 % intervals: bootstrap ({RESAMPLES:,} resamples of both sides) of the first two, Wilson's of "
        "the last.",
    ]


def _draw(inside: np.ndarray, others: Mapping[str, np.ndarray], threshold: float) -> Figure:
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    steps = np.linspace(0, 1, 401)
    axes.axvspan(threshold, 1, color=PALE, alpha=0.5, linewidth=0)
    for place, (name, values) in enumerate([("the labels' own", inside), *others.items()]):
        away = 1 - np.searchsorted(np.sort(values), steps, side="right") / len(values)
        colour = ACCENT if place == 0 else _OTHERS[(place - 1) % len(_OTHERS)]
        axes.plot(steps, away, color=colour, linewidth=2, label=f"{name} ({len(values)})")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="novelty", ylabel="share of the photographs above it")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(loc="lower left", frameon=False, fontsize=8, labelcolor=INK)
    axes.set_title(f"What novelty turns away; shaded: above the threshold of {threshold:.2f}", color=INK, fontsize=11)
    plain(axes)
    return figure
