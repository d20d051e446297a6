"""How accurate the model is when it withholds the predictions it is least confident of.

A threshold is chosen on validation images and measured on the split's (Geifman & El-Yaniv 2017): chosen and measured on
the same images it would look better than it is.
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from training.evaluation import selective
from training.evaluation.calibration import probabilities
from training.evaluation.evaluate import EvaluationData, Predictions
from training.evaluation.report.sections import Plot, Section
from training.markdown import percent, table, with_interval
from training.plotting import ACCENT, INK, PALE, WARN, plain


def section(data: EvaluationData) -> Section:
    """Return accuracy at several coverages and the area under the curve; metrics.json has them as ``coverage``."""
    confidence, right = _confidence(data.predictions, data), _right(data.predictions, data.targets)
    chosen_on, source = confidence, data.split
    if data.validation is not None:
        chosen_on, source = _confidence(data.validation.predictions, data), "val"
    rows = [
        {"coverage": coverage} | selective.at(selective.threshold_for(coverage, chosen_on), confidence, right)
        for coverage in selective.COVERAGES
    ]
    area, best = (round(selective.area(order, right), 6) for order in (confidence, right.astype(float)))
    figures = {"thresholds_chosen_on": source, "rows": rows, "area": area, "best_area": best}
    names = ("coverage", "threshold", "answered_share", "accuracy", "accuracy_interval")
    headline = {"coverage": [{n: row[n] for n in names} for row in rows]}
    plot = Plot(
        "coverage", _draw(confidence, right, rows), "Accuracy when only the most confident predictions are given"
    )
    return Section(
        "Accuracy at coverage", _lines(rows, figures, data, len(chosen_on)), figures, "coverage", [plot], headline
    )


def _confidence(predictions: Predictions, data: EvaluationData) -> np.ndarray:
    """Return the probability (N,) of the best label."""
    confidence: np.ndarray = probabilities(predictions.logits, data.card.temperature).max(1)
    return confidence


def _right(predictions: Predictions, targets: np.ndarray) -> np.ndarray:
    right: np.ndarray = predictions.logits.argmax(1) == targets
    return right


def _lines(rows: list[dict[str, Any]], figures: dict[str, Any], data: EvaluationData, count: int) -> list[str]:
    if data.validation is not None:
        source = (
            f"Each threshold is the one that answers the stated share of the {count} validation images; what "
            f"it answers, and how accurately, is measured on the {data.split} images."
        )
    else:
        source = (
            f"The thresholds were chosen on the {data.split} images they are measured on, so the accuracy is "
            "optimistic: measure them on other images."
        )
    return [
        source,
        "",
        *table(
            [
                "coverage chosen",
                "probability at least",
                "answered (95 % interval)",
                "wrong",
                "accuracy (95 % interval)",
            ],
            [
                (
                    percent(row["coverage"], 0),
                    f"{row['threshold']:.4f}",
                    f"{row['answered']}: {with_interval(row['answered_share'], row['answered_interval'])}",
                    row["wrong"],
                    with_interval(row["accuracy"], row["accuracy_interval"]),
                )
                for row in rows
            ],
        ),
        "",
        f"The area under the curve of wrong predictions over coverage is {100 * figures['area']:.3f} %; the least that "
        f"these mistakes allow is {100 * figures['best_area']:.3f} %.",
    ]


def _draw(confidence: np.ndarray, right: np.ndarray, rows: list[dict[str, Any]]) -> Figure:
    count = len(right)
    coverage = np.arange(1, count + 1) / count
    figure = Figure(figsize=(8.4, 4.4), layout="constrained")
    axes = figure.subplots()
    accuracy, ideal = 1 - selective.risks(confidence, right), 1 - selective.risks(right.astype(float), right)
    axes.fill_between(coverage, accuracy, ideal, color=PALE, alpha=0.6, linewidth=0)
    axes.plot(coverage, ideal, color=INK, linewidth=1, linestyle="--", label="if every mistake were withheld first")
    axes.plot(coverage, accuracy, color=ACCENT, linewidth=2, label="most confident first")
    _annotate(axes, [row for row in rows if row["accuracy"] is not None], count)
    lowest = min(float(accuracy.min()), float(ideal.min()))
    margin = max(1 - lowest, 0.01) * 0.35
    axes.set(xlim=(0, 1.01), ylim=(lowest - margin, 1 + margin * 0.15))
    axes.set(xlabel="share of the images that is answered", ylabel="share of the predictions that is right")
    axes.xaxis.set_major_formatter(PercentFormatter(1, 0, " %"))
    axes.yaxis.set_major_formatter(PercentFormatter(1, None, " %"))
    axes.legend(loc="lower left", frameon=False, fontsize=8, labelcolor=INK)
    axes.set_title("Accuracy at coverage", color=INK, fontsize=11)
    plain(axes)
    return figure


def _annotate(axes: Axes, rows: list[dict[str, Any]], count: int) -> None:
    """Mark the thresholds; the texts stand in a column beside the axes, where they cannot lie on each other."""
    points: dict[tuple[float, float], list[float]] = {}
    for row in sorted(rows, key=lambda row: (-row["accuracy"], row["answered"])):
        points.setdefault((row["answered"] / count, row["accuracy"]), []).append(row["threshold"])
    for position, (point, thresholds) in enumerate(points.items()):
        several = f" to {max(thresholds):.3f}" if len(thresholds) > 1 else ""
        axes.plot(*point, "o", color=WARN, markersize=6, zorder=4)
        axes.annotate(
            f"p ≥ {min(thresholds):.3f}{several}\n{100 * point[0]:.0f} % answered\n{100 * point[1]:.1f} % right",
            point,
            xytext=(1.04, (len(points) - position - 0.5) / len(points)),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            color=INK,
            arrowprops={"arrowstyle": "-", "color": WARN, "linewidth": 0.6, "relpos": (0, 0.5), "shrinkA": 0},
        )
