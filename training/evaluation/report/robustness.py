"""Accuracy on corrupted images: fifteen kinds of corruption in several severities."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from training.evaluation import intervals
from training.evaluation.calibration import probabilities
from training.evaluation.corruptions import KINDS, corrupt
from training.evaluation.evaluate import EvaluationData, Predictions, predict, progress
from training.evaluation.intervals import design_effect, mean_interval, wilson
from training.evaluation.metrics import rounded
from training.evaluation.report.novelty import KEPT
from training.evaluation.report.sections import Plot, Section
from training.markdown import interval, percent, table
from training.networks import synthetic_images
from training.plotting import INK

DEFAULT = (1, 3, 5)
_DRAWN = 1  # the synthetic image of the sample sheet


def section(data: EvaluationData, severities: Sequence[int] = DEFAULT) -> Section:
    """Corrupt every prepared image of the split in every kind and severity and classify it again.

    The seed of an image's corruption is its index in the split, so a second run has the same images.
    """
    clean = data.predictions.logits.argmax(1) == data.targets
    cells, right = [], []
    for kind, severity, predictions in _predictions(data, severities):
        right.append(predictions.logits.argmax(1) == data.targets)
        cells.append({"kind": kind, "severity": severity} | _cell(predictions, data))
    figures = {
        "severities": list(severities),
        **summary(clean, np.array(right), data.groups),
        "clean": _cell(data.predictions, data),
        "cells": cells,
    }
    names = ("severities", "mean_accuracy", "mean_accuracy_interval", "relative_accuracy")
    plots = [
        Plot("robustness", _heat(figures), "Accuracy by kind and severity of corruption, in percent"),
        Plot("corruptions", _sheet(data.card.input.size, severities), "The corruptions, on a synthetic image"),
    ]
    headline = {"robustness": {name: figures[name] for name in names}}
    return Section("Corrupted images", _lines(figures), figures, "robustness", plots, headline)


def summary(clean: np.ndarray, right: np.ndarray, groups: Sequence[str] = ()) -> dict[str, Any]:
    """Return the mean accuracy over the cells of the table, with its interval, and as a share of the clean one.

    Args:
        clean: (N,) bool, whether each unchanged image was recognised.
        right: (cells, N) bool, whether it was in each kind and severity; as many cells of each kind.
        groups: what each image comes from, if that is known.
    """
    each = right.mean(0)  # (N,): the interval is that of other images, each with all its corruptions
    if np.ptp(each) and not groups:
        bounds = mean_interval(each)
    else:  # equal ones prove no certainty, and those of one group count as fewer
        effect = design_effect(each, groups)
        bounds = wilson(each.sum() / effect, len(each) / effect)
    return {
        "mean_accuracy": rounded(each.mean()),
        "mean_accuracy_interval": [rounded(bound) for bound in np.clip(bounds, 0, 1)],
        "relative_accuracy": rounded(each.mean() / clean.mean()) if clean.any() else None,
    }


def _predictions(data: EvaluationData, severities: Sequence[int]) -> Iterator[tuple[str, int, Predictions]]:
    jobs = [(kind, severity) for kind in KINDS for severity in severities]
    indices = range(len(data.images))
    with progress(len(jobs), "corruptions") as bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        for kind, severity in jobs:
            corrupted = pool.map(lambda index, k=kind, s=severity: corrupt(data.images[index], k, s, index), indices)
            yield kind, severity, predict(data.classifier, np.stack(list(corrupted)))
            bar.update()


def _cell(predictions: Predictions, data: EvaluationData) -> dict[str, Any]:
    right = predictions.logits.argmax(1) == data.targets
    confidence = probabilities(predictions.logits, data.card.temperature).max(1)
    return {
        "accuracy": rounded(right.mean()),
        "interval": [rounded(bound) for bound in intervals.share(right, data.groups)],
        "probability_mean": rounded(confidence.mean()),
        "novel": rounded((predictions.novelty > KEPT).mean()),
    }


def _lines(figures: dict[str, Any]) -> list[str]:
    severities, clean = figures["severities"], figures["clean"]
    rows = [(f"{KINDS[kind].group}: {kind}", *map(_stated, cells), *_means(cells)) for kind, cells in _by_kind(figures)]
    unchanged = ("unchanged", *[_stated(clean)] * len(severities), *_means([clean]))
    low, high = figures["mean_accuracy_interval"]
    relative = figures["relative_accuracy"]
    return [
        "The prepared images under the fifteen corruptions of Hendrycks & Dietterich 2019 "
        "([arXiv 1903.12261](https://arxiv.org/abs/1903.12261)); `training/evaluation/corruptions` has the "
        f"strengths and what differs. Mean accuracy over all kinds and severities: {percent(figures['mean_accuracy'])} "
        f"({interval((low, high))}), {percent(relative)} of the accuracy on the unchanged images.",
        "",
        *table(
            ["", *(f"severity {s}" for s in severities), "mean", "mean probability", f"novelty above {KEPT}"],
            [unchanged, *rows],
        ),
        "",
        "In brackets 95 % intervals: Wilson's of single cells; of the mean the bootstrap over images, or Wilson's too "
        "where images come in groups. Where the mean probability is far above the mean accuracy, the model is "
        "overconfident.",
    ]


def _stated(cell: dict[str, Any]) -> str:
    return f"{percent(cell['accuracy'])} ({interval(cell['interval'])})"


def _means(cells: Sequence[dict[str, Any]]) -> list[str]:
    names = ("accuracy", "probability_mean", "novel")
    return [percent(float(np.mean([cell[name] for cell in cells]))) for name in names]


def _by_kind(figures: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    return [(kind, [cell for cell in figures["cells"] if cell["kind"] == kind]) for kind in KINDS]


def _heat(figures: dict[str, Any]) -> Figure:
    """Return the table as colours: a row per kind, a column per severity and one for the mean."""
    rows = [[cell["accuracy"] for cell in cells] for _, cells in _by_kind(figures)]
    shares = np.array([[figures["clean"]["accuracy"]] * len(rows[0]), *rows])
    shares = np.column_stack([shares, shares.mean(1)])
    figure = Figure(figsize=(2.4 + 0.85 * shares.shape[1], 6.2), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="BuGn", vmin=0, vmax=1, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        colour = "white" if share > 0.6 else INK
        axes.text(column, row, f"{100 * share:.1f}", ha="center", va="center", fontsize=9, color=colour)
    axes.set_xticks(range(shares.shape[1]), [*(f"severity {s}" for s in figures["severities"]), "mean"], fontsize=9)
    axes.set_yticks(range(len(shares)), ["unchanged", *KINDS], fontsize=9)
    axes.xaxis.tick_top()
    groups = [kind.group for kind in KINDS.values()]
    for index, group in enumerate(groups):
        if index == 0 or group != groups[index - 1]:
            axes.axhline(index + 0.5, color=INK, linewidth=1)
    axes.axvline(len(rows[0]) - 0.5, color=INK, linewidth=1)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def _sheet(size: int, severities: Sequence[int]) -> Figure:
    """Return a synthetic image in every kind and severity, unchanged at the left."""
    flower = synthetic_images(size, _DRAWN + 1)[_DRAWN]
    rows = [[flower, *(corrupt(flower, kind, severity, _DRAWN) for severity in severities)] for kind in KINDS]
    gap = max(1, size // 32)
    framed = [[np.pad(image, ((0, gap), (0, gap), (0, 0)), constant_values=255) for image in row] for row in rows]
    sheet = np.concatenate([np.concatenate(row, axis=1) for row in framed])
    names = ["unchanged", *(f"severity {severity}" for severity in severities)]
    figure = Figure(figsize=(1.9 + 0.74 * len(names), 11), layout="constrained")
    axes = figure.subplots()
    axes.imshow(sheet)
    centres = (np.arange(len(KINDS)) + 0.5) * (size + gap)
    axes.set_xticks(centres[: len(names)], names, fontsize=9, color=INK)
    axes.set_yticks(centres, list(KINDS), fontsize=9, color=INK)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure
