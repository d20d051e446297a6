"""Range test (Smith 2017, arXiv 1506.01186): the learning rate rises step by step until the loss diverges.

Lightning's own finder is not used: it gives every part of the network the same rate, goes on after a loss that is not
finite, and looks for the steepest fall over the rate itself, where the lowest rates win, not over its logarithm.
"""

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training import plotting
from training.fit.run import Run
from training.fit.steps import endless, of_stage, take
from training.fit.trainer import begin
from training.recipe import Recipe
from visionserve.errors import BundleError

MEMORY = 0.9  # of the smoothed loss, per step: one step's loss says little about its rate
DIVERGED = 2.0  # times the smallest smoothed loss so far
TABLE_ROWS = 12
SKIPPED = 10  # steps at the start: there the smoothed loss follows every single one


@dataclass(frozen=True)
class RangeTest:
    """(N,) rates, the losses at them as measured and smoothed; ``diverged`` if the test ended before its last rate."""

    rates: np.ndarray
    losses: np.ndarray
    smooth: np.ndarray
    diverged: bool

    @property
    def suggested(self) -> int | None:
        """Where the smoothed loss falls fastest over the logarithm of the rate, an index; None when it never falls."""
        lowest = int(np.argmin(self.smooth))
        if lowest <= SKIPPED:
            return None
        slopes = np.gradient(self.smooth[: lowest + 1], np.log(self.rates[: lowest + 1]))
        return SKIPPED + int(np.argmin(slopes[SKIPPED:]))


def range_test(recipe: Recipe, cache: Path, lowest: float, highest: float, steps: int) -> RangeTest:
    """Raise the recipe's rate from ``lowest`` to ``highest`` by the same factor in each of ``steps`` steps.

    This is done in the recipe's first stage, where the schedule has its peak. The whole network learns from the start.
    """
    if not 0 < lowest < highest:
        raise BundleError(f"--lowest must be above 0 and below --highest, not {lowest:g} and {highest:g}")
    if steps < 2 * SKIPPED:
        raise BundleError(f"a range test needs at least {2 * SKIPPED} steps, not {steps}")
    staged = of_stage(recipe, recipe.stages[0])
    with tempfile.TemporaryDirectory() as folder:
        module, images = begin(staged, Run(Path(folder)), cache)
    rising = _Rising(recipe.optimizer.learning_rate, np.geomspace(lowest, highest, steps))
    take(module, staged, endless(images), steps, rising)
    return rising.result()


def table(test: RangeTest) -> str:
    """Return a dozen rates with their smoothed losses as Markdown, the suggested one among them."""
    rows = set(np.linspace(0, len(test.rates) - 1, TABLE_ROWS).round().astype(int).tolist())
    if test.suggested is not None:
        rows.add(test.suggested)
    lines = ["| learning rate | smoothed loss | |", "| --- | --- | --- |"]
    for index in sorted(rows):
        mark = "falls fastest" if index == test.suggested else ""
        lines.append(f"| {test.rates[index]:.2g} | {test.smooth[index]:.3f} | {mark} |")
    return "\n".join(lines)


def draw(test: RangeTest, recipe_rate: float, path: Path) -> None:
    """Write a PNG of loss over rate, with the suggested rate and that of the recipe."""
    figure = Figure(figsize=(7.6, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.scatter(test.rates, test.losses, 10, plotting.PALE, zorder=1, label="loss of a step")
    axes.plot(test.rates, test.smooth, color=plotting.ACCENT, linewidth=2, label="smoothed")
    if test.suggested is not None:
        _mark_suggestion(axes, test.rates[test.suggested], test.smooth[test.suggested])
    if test.rates[0] <= recipe_rate <= test.rates[-1]:
        axes.axvline(
            recipe_rate, color=plotting.INK, linewidth=1, linestyle="--", label=f"the recipe's {recipe_rate:g}"
        )
    bottom, top = float(test.losses.min()), float(test.smooth.max())
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss")
    axes.set_ylim(bottom - 0.05 * (top - bottom), top + 0.1 * (top - bottom))
    end = ", where it diverged" if test.diverged else ""
    axes.set_title(f"Loss while the learning rate rises to {test.rates[-1]:.2g}{end}", color=plotting.INK, fontsize=11)
    axes.legend(frameon=False, fontsize=8)
    plotting.plain(axes)
    path.parent.mkdir(parents=True, exist_ok=True)
    plotting.save(figure, path)


class _Rising(Callback):
    """Sets the rate of each step and records its loss."""

    def __init__(self, reference: float, rates: np.ndarray) -> None:
        self._reference, self._rates = reference, rates
        self._losses: list[float] = []
        self._smooth: list[float] = []
        self._sum = 0.0
        self._diverged = False

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:  # noqa: ARG002
        """Give every part of the network its share of the rate; the recipe's schedule is not used."""
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = self._rates[len(self._losses)] * group["initial_lr"] / self._reference

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs: Any, *_: Any) -> None:  # noqa: ARG002
        """Stop when the loss is not finite or far above its lowest."""
        loss = float(outputs["loss"])
        if math.isfinite(loss):
            self._losses.append(loss)
            self._sum = MEMORY * self._sum + (1 - MEMORY) * loss
            self._smooth.append(self._sum / (1 - MEMORY ** len(self._losses)))
        if not math.isfinite(loss) or self._smooth[-1] > DIVERGED * min(self._smooth):
            self._diverged = trainer.should_stop = True

    def result(self) -> RangeTest:
        """Return what was measured."""
        count = len(self._losses)
        return RangeTest(self._rates[:count], np.array(self._losses), np.array(self._smooth), self._diverged)


def _mark_suggestion(axes: Axes, rate: float, loss: float) -> None:
    axes.scatter(rate, loss, 60, plotting.ACCENT, zorder=4)
    text = f"falls fastest: {rate:.2g}"
    axes.annotate(
        text, (rate, loss), xytext=(10, 10), textcoords="offset points", color=plotting.ACCENT, backgroundcolor="white"
    )
