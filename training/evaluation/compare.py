"""Compare: bundles and precisions by accuracy, work, size and speed on this machine.

Accuracy is measured on the photographs of the manifest that all bundles share, speed by the engine alone on drawn
pictures, in rounds that visit every network in turn, so that a busy moment of the machine meets all of them.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from training.data.datamodule import served
from training.data.manifest import Manifest
from training.evaluation import evaluate, metrics
from training.evaluation.bootstrap import mean_interval
from training.evaluation.contenders import Contender
from training.networks import synthetic_images
from visionserve.engines import Engine
from visionserve.transforms import Preprocessing

_COLUMNS = (
    "network",
    "precision",
    "input, crop",
    "validation top-1",
    "test top-1 (95 % interval)",
    "difference on test (95 % interval; lost, won)",
    "multiplications",
    "file",
    "images/s, median (range)",
    "times as fast",
)
SPLITS: tuple[Literal["val", "test"], ...] = ("val", "test")


@dataclass(frozen=True)
class Row:
    """What was found about a contender.

    ``right`` has the correctness of every photograph per split; ``rates`` the images/s of every round.
    """

    contender: Contender
    right: dict[str, np.ndarray]
    rates: tuple[float, ...] = ()


def correctness(contender: Contender, manifest: Manifest, threads: int) -> dict[str, np.ndarray]:
    """Return for every photograph of each split whether its label was recognised."""
    engine = contender.engine(threads)
    preprocessing = Preprocessing(contender.card.input.size, contender.card.input.crop)
    found: dict[str, np.ndarray] = {}
    for split in SPLITS:
        images, targets = served(manifest, split, preprocessing)
        answers = [engine.run(batch).logits.argmax(1) for batch in evaluate.batches(images, 8)]
        found[split] = np.concatenate(answers) == targets
    return found


def race(
    entrants: Sequence[Contender], rounds: int, seconds: float, *, batch: int = 4, threads: int = 1
) -> list[tuple[float, ...]]:
    """Return the images/s of every contender in each round; a round gives each ``seconds`` in turn."""
    jobs = [(entrant.engine(threads), synthetic_images(entrant.card.input.size, batch)) for entrant in entrants]
    for engine, images in jobs:
        engine.run(images)  # compiles for the size of the batch
    found = [[_rate(engine, images, seconds) for engine, images in jobs] for _ in range(rounds)]
    return list(zip(*found, strict=True)) if found else [() for _ in entrants]


def table(rows: Sequence[Row]) -> str:
    """Return the comparison as a Markdown table; differences and ratios are to the first row."""
    first = rows[0]
    lines = [f"| {' | '.join(_COLUMNS)} |", "|" + "---|" * len(_COLUMNS)]
    for row in rows:
        one, right = row.contender, row.right["test"]
        low, high = metrics.wilson(int(right.sum()), len(right))
        cells = [
            one.name,
            one.precision,
            f"{one.card.input.size} px, {one.card.input.crop:g}",
            f"{100 * row.right['val'].mean():.2f} %",
            f"{100 * right.mean():.2f} % ({100 * low:.1f}-{100 * high:.1f})",
            _difference(first.right["test"], right) if row is not first else "",
            f"{one.operations / 1e9:.2f} x 10^9",
            f"{one.file.stat().st_size / 1e6:.1f} MB",
            _spread(row.rates, ".0f"),
            _spread(ratios(row, first), ".2f"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def paired(before: np.ndarray, after: np.ndarray) -> tuple[int, int, float, float]:
    """Return how many of the same photographs (N,) were lost and won, and the paired bootstrap's 95 % interval.

    The interval is that of the change of the share of photographs that were right.
    """
    low, high = mean_interval(after.astype(np.float64) - before)
    return int((before & ~after).sum()), int((~before & after).sum()), low, high


def ratios(row: Row, first: Row) -> tuple[float, ...]:
    """Return how many times as fast as the first row each round was."""
    return tuple(mine / theirs for mine, theirs in zip(row.rates, first.rates, strict=True))


def plain(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the figures behind table and plot, for a JSON file."""
    return [
        {
            "network": row.contender.name,
            "precision": row.contender.precision,
            "size": row.contender.card.input.size,
            "crop": row.contender.card.input.crop,
            "operations": row.contender.operations,
            "bytes": row.contender.file.stat().st_size,
            "images_per_second": [round(rate, 1) for rate in row.rates],
            **{split: {"right": int(found.sum()), "photographs": len(found)} for split, found in row.right.items()},
            "paired_test": paired(rows[0].right["test"], row.right["test"]),
        }
        for row in rows
    ]


def _rate(engine: Engine, images: np.ndarray, seconds: float) -> float:
    done, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds:
        engine.run(images)
        done += len(images)
    return done / passed


def _difference(before: np.ndarray, after: np.ndarray) -> str:
    lost, won, low, high = paired(before, after)
    return f"{100 * (won - lost) / len(before):+.2f} ({100 * low:+.2f} to {100 * high:+.2f}; -{lost} +{won})"


def _spread(values: tuple[float, ...], form: str) -> str:
    if not values:
        return "not measured"
    return f"{statistics.median(values):{form}} ({min(values):{form}}-{max(values):{form}})"
