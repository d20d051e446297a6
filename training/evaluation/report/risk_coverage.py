"""How accurate the model is when it answers only what it is sure of."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from training.evaluation import selective
from training.evaluation.calibration import probabilities
from training.evaluation.evaluate import Evidence
from training.evaluation.report.sections import Plot, Section
from training.markdown import interval, percent, table
from training.plotting import ACCENT, INK, PALE, WARN, plain


def section(evidence: Evidence) -> Section:
    """Return accuracy at several coverages and the area under the curve; metrics.json has them as ``coverage``."""
    found = probabilities(evidence.served.logits, evidence.card.temperature)
    confidence, right = found.max(1), found.argmax(1) == evidence.targets
    rows = [selective.at(coverage, confidence, right) for coverage in selective.COVERAGES]
    area, best = (round(selective.area(order, right), 6) for order in (confidence, right.astype(float)))
    figures = {"rows": rows, "area": area, "best_area": best}
    lines = [
        *table(
            ["answers at least", "probability at least", "answered", "wrong", "accuracy (95 % interval)"],
            [
                (
                    percent(row["coverage"], 0),
                    f"{row['threshold']:.3f}",
                    row["answered"],
                    row["wrong"],
                    f"{percent(row['accuracy'], 2)} ({interval(row['accuracy_interval'])})",
                )
                for row in rows
            ],
        ),
        "",
        f"The area under the curve of wrong answers over coverage is {100 * area:.3f} %; the least that "
        f"these mistakes allow is {100 * best:.3f} %. These thresholds were read off the photographs they are "
        "measured on: a service that wants one takes it from validation (`--split val`).",
    ]
    caption = "Share of right answers when only the surest are given"
    headline = {"coverage": [{n: row[n] for n in ("coverage", "threshold", "accuracy")} for row in rows]}
    plot = Plot("coverage", _draw(confidence, right, rows), caption)
    return Section("Accuracy at coverage", lines, figures, "coverage", [plot], headline)


def _draw(confidence: np.ndarray, right: np.ndarray, rows: list[dict[str, Any]]) -> Figure:
    count = len(right)
    coverage = np.arange(1, count + 1) / count
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    accuracy, ideal = 1 - selective.risks(confidence, right), 1 - selective.risks(right.astype(float), right)
    axes.fill_between(coverage, accuracy, ideal, color=PALE, alpha=0.6, linewidth=0)
    axes.plot(coverage, ideal, color=INK, linewidth=1, linestyle="--", label="if every mistake were left out first")
    axes.plot(coverage, accuracy, color=ACCENT, linewidth=2, label="surest answers first")
    for row in rows:
        place = row["answered"] / count
        axes.plot(place, row["accuracy"], "o", color=WARN, markersize=6, zorder=4)
        axes.annotate(
            f"{100 * row['accuracy']:.1f} %\np ≥ {row['threshold']:.3f}",
            (place, row["accuracy"]),
            xytext=(-6, -8),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=8,
            color=INK,
        )
    lowest = min(float(accuracy.min()), float(ideal.min()))
    margin = max(1 - lowest, 0.01) * 0.35
    axes.set(xlim=(0, 1.01), ylim=(lowest - margin, 1 + margin * 0.15))
    axes.set(xlabel="share of the photographs that is answered", ylabel="share of the answers that is right")
    axes.xaxis.set_major_formatter(PercentFormatter(1, 0, " %"))
    axes.yaxis.set_major_formatter(PercentFormatter(1, 1, " %"))
    axes.legend(loc="lower left", frameon=False, fontsize=8, labelcolor=INK)
    axes.set_title("Accuracy at coverage", color=INK, fontsize=11)
    plain(axes)
    return figure
