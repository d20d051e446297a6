"""Sheets of images: misclassified images beside examples, and heatmaps of right and of wrong predictions."""

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

from training.evaluation.calibration import probabilities
from training.evaluation.evaluate import EvaluationData, batches, prepare
from training.evaluation.report.sections import Plot, Section
from training.plotting import ACCENT, INK, WARN
from visionserve.heatmap import overlay_png

_SHOWN = 12  # heatmaps of right predictions, and of wrong ones
_SEED = 0
_TILE = 1.75  # inches
_GAP = 0.16  # between groups, in tiles
_LETTERS = 26  # of a tile's title in one line
_LINES = 3
_PAD = 0.02  # inches around a tile


@dataclass(frozen=True)
class Tile:
    """An image (S, S, 3) uint8, or None for a blank tile, with a title above it."""

    image: np.ndarray | None
    title: str
    colour: str = INK


def sheet(groups: Sequence[Sequence[Tile]], across: int, heading: str) -> Figure:
    """Return a figure of groups of equally many tiles, ``across`` groups in a row."""
    tiles = len(groups[0])
    across = min(across, len(groups))
    rows = -(-len(groups) // across)
    widths = ([1.0] * tiles + [_GAP]) * across
    figure = Figure(
        figsize=(_TILE * sum(widths[:-1]) + 0.2, (_TILE + 0.5) * rows + 0.35),
        layout=ConstrainedLayoutEngine(w_pad=_PAD, h_pad=_PAD, wspace=0.0, hspace=0.0),
    )
    grid = figure.add_gridspec(rows, len(widths) - 1, width_ratios=widths[:-1])
    for index, group in enumerate(groups):
        row, column = divmod(index, across)
        for number, tile in enumerate(group):
            axes = figure.add_subplot(grid[row, column * (tiles + 1) + number])
            axes.set_axis_off()
            axes.set_title(_wrapped(tile.title), fontsize=8, color=tile.colour, pad=3, parse_math=False)
            axes.imshow(np.full((8, 8, 3), 236, np.uint8) if tile.image is None else tile.image)
    figure.suptitle(heading, color=INK, fontsize=11)
    return figure


def heatmaps(data: EvaluationData) -> Section:
    """Return two sheets of images; they hold no metrics."""
    if not data.card.heatmap:
        return Section("Heatmaps", [f"{data.card.architecture} has no class maps, so this model has no heatmaps."])
    probability = probabilities(data.predictions.logits, data.card.temperature)
    predicted = probability.argmax(1)
    right, wrong = np.flatnonzero(predicted == data.targets), np.flatnonzero(predicted != data.targets)
    sample = np.sort(np.random.default_rng(_SEED).permutation(right)[:_SHOWN])
    surest = wrong[np.argsort(-probability[wrong, predicted[wrong]], kind="stable")[:_SHOWN]]
    lines = [
        "The heatmap is the one that is served: the evidence for a label at each position, the strongest red. "
        f"Right predictions are a random choice with seed {_SEED}; of the wrong ones the most confident are shown, "
        "with the heatmap of the predicted label and of the true one."
    ]
    plots = []
    if len(sample):
        groups = [_tiles(data, probability, index, (predicted[index],)) for index in sample]
        caption = f"Right predictions: {len(sample)} of {len(right)}, image and heatmap"
        plots.append(Plot("heatmaps_right", sheet(groups, 3, "Right predictions"), caption, photographs=True))
    if len(surest):
        groups = [_tiles(data, probability, index, (predicted[index], data.targets[index])) for index in surest]
        caption = (
            f"Wrong predictions: the most confident {len(surest)} of {len(wrong)}; image, heatmap of the predicted "
        )
        caption += "label, heatmap of the true label"
        plots.append(Plot("heatmaps_wrong", sheet(groups, 2, "Wrong predictions"), caption, photographs=True))
    return Section("Heatmaps", lines, plots=plots)


def pairs(data: EvaluationData, rows: Sequence[dict[str, Any]]) -> Figure:
    """Return, for each of the worst pairs, a misclassified image and one of the predicted label."""
    labels = data.card.labels
    probability = probabilities(data.predictions.logits, data.card.temperature)
    predicted = probability.argmax(1)
    groups = []
    for row in rows:
        truth, answer = labels.index(row["label"]), labels.index(row["predicted"])
        mistaken = np.flatnonzero((data.targets == truth) & (predicted == answer))
        surest = mistaken[probability[mistaken, answer].argmax()]
        share = f"{100 * probability[surest, answer]:.0f}\N{NO-BREAK SPACE}%"
        groups.append(
            [
                Tile(data.images[surest], f"{row['label']}\npredicted {row['predicted']}, {share}"),
                Tile(_example(data, answer, probability), f"for comparison:\n{row['predicted']}"),
            ]
        )
    return sheet(groups, 2, "Misclassified images and the predicted labels")


def _example(data: EvaluationData, label: int, probability: np.ndarray) -> np.ndarray | None:
    """Return the image of a label with its highest probability: of this split, else of any, else none."""
    examples = np.flatnonzero(data.targets == label)
    if len(examples):
        image: np.ndarray = data.images[examples[probability[examples, label].argmax()]]
        return image
    name = data.card.labels[label]
    files = (data.manifest.root / row.path for row in data.manifest.rows if row.label == name)
    file = next(files, None)
    return None if file is None else prepare([file], data.classifier.preprocessing)[0]


def _tiles(data: EvaluationData, probability: np.ndarray, index: int, labels: tuple[int, ...]) -> list[Tile]:
    """Return an image of the split and its heatmaps for some labels; the first is the predicted one."""
    image, target = data.images[index], data.targets[index]
    (answer,) = data.classifier.classify(next(batches(image[None])))
    names = data.card.labels
    tiles = [Tile(image, names[target])]
    for label in labels:
        part, share = (
            "true" if len(tiles) > 1 else "predicted",
            f"{100 * probability[index, label]:.0f}\N{NO-BREAK SPACE}%",
        )
        overlay = Image.open(io.BytesIO(overlay_png(image, answer.class_map(int(label)))))
        tiles.append(Tile(np.asarray(overlay), f"{part}: {names[label]}, {share}", ACCENT if label == target else WARN))
    return tiles


def _wrapped(title: str) -> str:
    lines = [line for part in title.split("\n") for line in textwrap.wrap(part, _LETTERS)]
    return "\n".join([*lines[: _LINES - 1], " ".join(lines[_LINES - 1 :])] if len(lines) > _LINES else lines)
