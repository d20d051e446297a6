"""Grids of validation images, each with its label, the predicted label and its probability."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from training.data.cache import Pixels

LabelledImages = Sequence[tuple[Tensor, int]]
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


def samples(images: LabelledImages, answers: Answers) -> Figure:
    """Return the same images at every epoch, spread evenly over the split."""
    count = min(SAMPLES, len(images))
    indices = np.linspace(0, len(images) - 1, count).round().astype(int).tolist()
    return _grid(images, answers, indices, f"Validation images after epoch {answers.epoch + 1}")


def mistakes(images: LabelledImages, answers: Answers) -> Figure | None:
    """Return the wrong answers that the network was surest of; None when there are none."""
    probability, predicted = answers.probabilities.max(1)
    wrong = torch.nonzero(predicted != answers.targets).flatten()
    if not len(wrong):
        return None
    indices = wrong[probability[wrong].argsort(descending=True, stable=True)][:MISTAKES].tolist()
    title = f"The surest of {len(wrong)} mistakes in {len(images)} after epoch {answers.epoch + 1}"
    return _grid(images, answers, indices, title)


def pixels(figure: Figure) -> Pixels:
    """Return a figure as (H, W, 3) uint8."""
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(_DPI)
    canvas.draw()  # type: ignore[no-untyped-call]
    coloured: Pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    return np.ascontiguousarray(coloured[..., :3])


def _grid(images: LabelledImages, answers: Answers, indices: list[int], title: str) -> Figure:
    rows = -(-len(indices) // COLUMNS)
    figure = Figure(figsize=(2 * COLUMNS, 2.45 * rows + 0.4), layout="constrained")
    figure.suptitle(f"{title}; probabilities are not calibrated yet", color=_INK, fontsize=13)
    grid = figure.subplots(rows, COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, index in zip(grid.flat, indices, strict=False):
        image, target = images[index]
        probability, predicted = answers.probabilities[index].max(0)
        right = int(predicted) == target
        answer = f"{answers.labels[int(predicted)]} {100 * float(probability):.0f} %"
        axes.imshow(image.numpy())
        text = answer if right else f"{answer}\nis {answers.labels[target]}"
        axes.set_title(text, fontsize=10, color=_RIGHT if right else _WRONG, parse_math=False)
    return figure
