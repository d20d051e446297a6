"""Report: the frontier as a table and a figure, and the best setting as a profile that `make archive` uses."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

import matplotlib
import yaml
from matplotlib import pyplot

from loadtests.tune.search import TrialLog
from loadtests.tune.setting import Setting
from loadtests.tune.trial import Result
from visionserve.files import write_text

MARKDOWN, FIGURE = "tune.md", "tune.png"


def markdown(log: TrialLog, shipped: Setting, facts: str, slo_ms: float) -> str:
    """Return all trials, best first."""
    lines = [
        f"Highest rate of Poisson arrivals with p99 below {slo_ms:g} ms and no error. {facts}",
        "",
        "| workers x threads | batch | delay, ms | runtime | sustained, 1/s | p50, ms | p99, ms | 32 connections, 1/s | alone p50, ms |",  # noqa: E501
        "|---|---|---|---|---|---|---|---|---|",
    ]
    ordered = sorted(log.results("search"), key=lambda result: -result.rate)
    lines += [_row(result, shipped) for result in ordered]
    finals = log.results("final")
    if finals:
        lines += ["", "The best against the shipped settings, in turns:", ""]
        lines += [_final(setting, finals) for setting in dict.fromkeys(result.setting for result in finals)]
    return "\n".join(lines) + "\n"


def draw(results: Sequence[Result], shipped: Setting, slo_ms: float, path: Path) -> None:
    """Write the figure: the sustained rate against the latency of one request alone, with the Pareto frontier."""
    matplotlib.use("Agg")
    successful = [result for result in results if result.rate]
    figure, axes = pyplot.subplots(figsize=(8, 4.8), layout="constrained")
    try:
        edge = frontier(successful)
        axes.plot([r.alone_ms for r in edge], [r.rate for r in edge], "-", color="#c23b3b", label="frontier")
        for result in successful:
            colour = "#3b7dd8" if result.setting == shipped else "#8d93a8"
            axes.plot(result.alone_ms, result.rate, "o", color=colour)
            if result in edge or result.setting == shipped:
                label = str(result.setting) + (" (shipped)" if result.setting == shipped else "")
                axes.annotate(
                    label, (result.alone_ms, result.rate), xytext=(6, 4), textcoords="offset points", fontsize=7
                )
        axes.set_xlabel("one request at a time, p50, ms")
        axes.set_ylabel(f"highest rate sustained with p99 below {slo_ms:g} ms, 1/s")
        axes.set_ylim(bottom=0)
        axes.margins(x=0.25)
        axes.set_title("What each setting sustains", loc="left", fontweight="bold")
        axes.grid(visible=True, alpha=0.25)
        figure.savefig(path, dpi=130)
    finally:
        pyplot.close(figure)


def frontier(results: Sequence[Result]) -> list[Result]:
    """Return the Pareto frontier: results that no other exceeds in rate without being slower alone, by latency."""
    edge: list[Result] = []
    for result in sorted(results, key=lambda result: (result.alone_ms, -result.rate)):
        if not edge or result.rate > edge[-1].rate:
            edge.append(result)
    return edge


def write_profile(setting: Setting, path: Path, facts: str) -> None:
    """Write the settings as `make archive` reads them beside a bundle."""
    head = f"# Found by `make tune`: {facts}\n# `make archive` puts these in place of the profile's own values.\n"
    write_text(path, head + yaml.safe_dump(setting.config(), sort_keys=False))


def _row(result: Result, shipped: Setting) -> str:
    setting = result.setting
    name = f"{setting.workers} x {setting.threads}" + (" (shipped)" if setting == shipped else "")
    cells = [name, str(setting.batch_size), str(setting.delay_ms), setting.runtime]
    if result.error:
        return "| " + " | ".join([*cells, result.error, "", "", "", ""]) + " |"
    numbers = [result.rate, result.p50_ms, result.p99_ms, result.capacity]
    return "| " + " | ".join([*cells, *(f"{number:.0f}" for number in numbers), f"{result.alone_ms:.1f}"]) + " |"


def _final(setting: Setting, finals: Sequence[Result]) -> str:
    rates = [result.rate for result in finals if result.setting == setting]
    return f"- {setting}: {median(rates):.0f}/s ({min(rates):.0f}-{max(rates):.0f}, {len(rates)} rounds)"
