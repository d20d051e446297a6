"""The range test as a table and a plot."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training import plotting
from training.fit.lr_finder import RangeTest

ROWS = 12  # of the table


def table(test: RangeTest) -> str:
    """Return a dozen rates with their smoothed losses as Markdown, the suggested one among them."""
    chosen = set(np.linspace(0, len(test.rates) - 1, ROWS).round().astype(int).tolist())
    if test.suggested is not None:
        chosen.add(test.suggested)
    lines = ["| learning rate | smoothed loss | |", "| --- | --- | --- |"]
    for place in sorted(chosen):
        mark = "falls fastest" if place == test.suggested else ""
        lines.append(f"| {test.rates[place]:.2g} | {test.smooth[place]:.3f} | {mark} |")
    return "\n".join(lines)


def draw(test: RangeTest, recipe_rate: float, path: Path) -> None:
    """Write a PNG of loss over rate, with the suggested rate and that of the recipe."""
    figure = Figure(figsize=(7.6, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.scatter(test.rates, test.losses, 10, plotting.PALE, zorder=1, label="loss of a step")
    axes.plot(test.rates, test.smooth, color=plotting.ACCENT, linewidth=2, label="smoothed")
    if test.suggested is not None:
        _mark(axes, test.rates[test.suggested], test.smooth[test.suggested])
    if test.rates[0] <= recipe_rate <= test.rates[-1]:
        axes.axvline(
            recipe_rate, color=plotting.INK, linewidth=1, linestyle="--", label=f"the recipe's {recipe_rate:g}"
        )
    bottom, top = float(test.losses.min()), float(test.smooth.max())
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss")
    axes.set_ylim(bottom - 0.05 * (top - bottom), top + 0.1 * (top - bottom))
    end = ", where it ran away" if test.diverged else ""
    axes.set_title(f"Loss while the learning rate rises to {test.rates[-1]:.2g}{end}", color=plotting.INK, fontsize=11)
    axes.legend(frameon=False, fontsize=8)
    plotting.plain(axes)
    path.parent.mkdir(parents=True, exist_ok=True)
    plotting.save(figure, path)


def _mark(axes: Axes, rate: float, loss: float) -> None:
    axes.scatter(rate, loss, 60, plotting.ACCENT, zorder=4)
    words = f"falls fastest: {rate:.2g}"
    axes.annotate(
        words, (rate, loss), xytext=(10, 10), textcoords="offset points", color=plotting.ACCENT, backgroundcolor="white"
    )
