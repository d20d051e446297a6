"""Sheets of validation photographs, each with its label, the answer and the answer's probability."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from training.data.cache import Pixels

Photographs = Sequence[tuple[Tensor, int]]
SAMPLES, MISTAKES, COLUMNS = 24, 12, 6
_INK, _RIGHT, _WRONG = "#263238", "#00796b", "#c62828"
_DPI = 100


@dataclass(frozen=True)
class Answers:
    """Probabilities (N, C) before calibration, and label indices (N,), of an epoch counted from 0."""

    probabilities: Tensor
    targets: Tensor
    labels: tuple[str, ...]
    epoch: int


def samples(photographs: Photographs, answers: Answers) -> Figure:
    """Return the same photographs at every epoch, spread evenly over the split."""
    count = min(SAMPLES, len(photographs))
    chosen = np.linspace(0, len(photographs) - 1, count).round().astype(int).tolist()
    return _sheet(photographs, answers, chosen, f"Validation photographs after epoch {answers.epoch + 1}")


def mistakes(photographs: Photographs, answers: Answers) -> Figure | None:
    """Return the wrong answers that the network was surest of; None when there are none."""
    probability, said = answers.probabilities.max(1)
    wrong = torch.nonzero(said != answers.targets).flatten()
    if not len(wrong):
        return None
    chosen = wrong[probability[wrong].argsort(descending=True, stable=True)][:MISTAKES].tolist()
    title = f"The surest of {len(wrong)} mistakes in {len(photographs)} after epoch {answers.epoch + 1}"
    return _sheet(photographs, answers, chosen, title)


def pixels(figure: Figure) -> Pixels:
    """Return a figure as (H, W, 3) uint8."""
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(_DPI)
    canvas.draw()  # type: ignore[no-untyped-call]
    coloured: Pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    return np.ascontiguousarray(coloured[..., :3])


def _sheet(photographs: Photographs, answers: Answers, chosen: list[int], title: str) -> Figure:
    rows = -(-len(chosen) // COLUMNS)
    figure = Figure(figsize=(2 * COLUMNS, 2.45 * rows + 0.4), layout="constrained")
    figure.suptitle(f"{title}; probabilities are not calibrated yet", color=_INK, fontsize=13)
    grid = figure.subplots(rows, COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, place in zip(grid.flat, chosen, strict=False):
        image, target = photographs[place]
        probability, said = answers.probabilities[place].max(0)
        right = int(said) == target
        answer = f"{answers.labels[int(said)]} {100 * float(probability):.0f} %"
        axes.imshow(image.numpy())
        text = answer if right else f"{answer}\nis {answers.labels[target]}"
        axes.set_title(text, fontsize=10, color=_RIGHT if right else _WRONG)
    return figure
