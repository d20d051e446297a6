"""Sheets of photographs: groups of tiles that belong together, several groups in a row."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from training.evaluation.calibration import probabilities
from training.evaluation.evaluate import Evidence, prepare
from training.plotting import INK

_TILE = 1.75  # inches
_GAP = 0.16  # between groups, in tiles
_LETTERS = 26  # of a tile's title in one line
_LINES = 3
_PAD = 0.02  # inches around a tile


@dataclass(frozen=True)
class Tile:
    """An image (S, S, 3) uint8, or None for a blank place, with a title above it."""

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
    for place, group in enumerate(groups):
        row, column = divmod(place, across)
        for number, tile in enumerate(group):
            axes = figure.add_subplot(grid[row, column * (tiles + 1) + number])
            axes.set_axis_off()
            axes.set_title(_wrapped(tile.title), fontsize=8, color=tile.colour, pad=3)
            axes.imshow(np.full((8, 8, 3), 236, np.uint8) if tile.image is None else tile.image)
    figure.suptitle(heading, color=INK, fontsize=11)
    return figure


def pairs(evidence: Evidence, rows: Sequence[dict[str, Any]]) -> Figure:
    """Return, for each of the worst pairs, a mistaken photograph and one of the label it was taken for."""
    labels = evidence.card.labels
    found = probabilities(evidence.served.logits, evidence.card.temperature)
    said = found.argmax(1)
    groups = []
    for row in rows:
        truth, answer = labels.index(row["label"]), labels.index(row["predicted"])
        mistaken = np.flatnonzero((evidence.targets == truth) & (said == answer))
        surest = mistaken[found[mistaken, answer].argmax()]
        share = f"{100 * found[surest, answer]:.0f}\N{NO-BREAK SPACE}%"
        groups.append(
            [
                Tile(evidence.images[surest], f"{row['label']}\ntaken for {row['predicted']}, {share}"),
                Tile(_example(evidence, answer, found), f"for comparison:\n{row['predicted']}"),
            ]
        )
    return sheet(groups, 2, "What was taken for what")


def _example(evidence: Evidence, label: int, found: np.ndarray) -> np.ndarray | None:
    """Return the photograph of a label that is surest of it: of this split, else of any, else none."""
    own = np.flatnonzero(evidence.targets == label)
    if len(own):
        image: np.ndarray = evidence.images[own[found[own, label].argmax()]]
        return image
    name = evidence.card.labels[label]
    files = (evidence.manifest.root / row.path for row in evidence.manifest.rows if row.label == name)
    file = next(files, None)
    return None if file is None else prepare([file], evidence.classifier.preprocessing)[0]


def _wrapped(title: str) -> str:
    lines = [line for part in title.split("\n") for line in textwrap.wrap(part, _LETTERS)]
    return "\n".join([*lines[: _LINES - 1], " ".join(lines[_LINES - 1 :])] if len(lines) > _LINES else lines)
