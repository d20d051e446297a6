"""The profile as Markdown and JSON: rates and what limits them, the parts of a step, the operators, the memory."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from training import machine
from training import recipe as recipes
from training.data.datamodule import loading_processes
from training.fit.profiler import Profile, StageProfile
from training.fit.stopwatch import PARTS
from training.markdown import table
from training.recipe import Recipe

MARKDOWN, DATA = "profile.md", "profile.json"
TOGETHER = 0.85  # of the slower one's rate: less says that loading and step take time from each other


def write(profile: Profile, facts: dict[str, Any], recipe: Recipe, folder: Path) -> str:
    """Write profile.md and profile.json into ``folder`` and return the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    text = markdown(profile, facts, recipe)
    (folder / MARKDOWN).write_text(text, encoding="utf-8")
    content = {"machine": facts, "recipe": recipes.plain(recipe)} | asdict(profile)
    (folder / DATA).write_text(json.dumps(content, indent=1), encoding="utf-8")
    return text


def limit(stage: StageProfile, cache: bool) -> str:
    """Say in a few words whether loading or the step limits a stage, and whether they slow each other down."""
    loading = median(stage.cached if cache else stage.decoded)
    step, both = median(stage.step), median(stage.both)
    slower = min(loading, step)
    words = "loading" if loading < step else "the step"
    if both < TOGETHER * slower:
        return f"{words}; they slow each other down: together {100 * both / slower:.0f} % of it"
    return words


def markdown(profile: Profile, facts: dict[str, Any], recipe: Recipe) -> str:
    """Return the tables."""
    workers = loading_processes(recipe)
    source = "the cache" if recipe.data.cache else "the JPEGs"
    rounds = len(profile.stages[0].both)
    lines = [
        f"# Profile of {recipe.name}",
        "",
        f"{recipe.architecture}, batches of {recipe.batch_size}, {profile.precision}, {workers} loading "
        f"{'process' if workers == 1 else 'processes'}, images from {source}.",
        "",
        f"Images/s: medians of {rounds} interleaved rounds of {profile.steps} steps (lowest-highest).",
        "",
        *_rates(profile, recipe),
        "",
        f"Milliseconds of a step in the loop, medians of {len(profile.stages[0].parts)} steps (quartiles), and shares:",
        "",
        *_parts(profile),
        "",
    ]
    for stage in profile.stages:
        lines += [
            f"Operators at {_name(stage)}: own share of the step's time, calls per step",
            "",
            *_operators(stage),
            "",
        ]
    return "\n".join([*lines, _memory(profile, facts), "", machine.sentence(facts), ""])


def _rates(profile: Profile, recipe: Recipe) -> list[str]:
    rows = [
        [
            _name(stage),
            *(_spread(values) for values in (stage.cached, stage.decoded, stage.step, stage.both)),
            limit(stage, recipe.data.cache),
        ]
        for stage in profile.stages
    ]
    return table(["stage", "loading, cache", "loading, JPEGs", "step alone", "both", "limited by"], rows)


def _parts(profile: Profile) -> list[str]:
    columns = []
    for stage in profile.stages:
        wholes = [sum(step.values()) for step in stage.parts]
        cells = [_time([step[part] for step in stage.parts], median(wholes)) for part in PARTS]
        columns.append([*cells, _time(wholes, median(wholes))])
    rows = [list(row) for row in zip([*PARTS, "**a step**"], *columns, strict=True)]
    return table(["part", *(_name(stage) for stage in profile.stages)], rows)


def _operators(stage: StageProfile) -> list[str]:
    rows = [[f"`{one.name}`", f"{100 * one.share:.1f} %", f"{one.calls:.0f}"] for one in stage.operators]
    return table(["operator", "share", "calls"], rows)


def _memory(profile: Profile, facts: dict[str, Any]) -> str:
    gigabytes = {name: size / 1e9 for name, size in profile.memory.items()}
    gpu = f", {gigabytes['gpu']:.2f} GB on the GPU" if "gpu" in gigabytes else ""
    fits = "fits into" if gigabytes["cache"] < facts["memory_gb"] else "does not fit into"
    return (
        f"Memory at its peak: {gigabytes['process']:.2f} GB, {gigabytes['worker']:.2f} GB in a loading process{gpu}. "
        f"The cache of decoded images has {gigabytes['cache']:.2f} GB and {fits} the memory of "
        f"{facts['memory_gb']:g} GB."
    )


def _name(stage: StageProfile) -> str:
    return f"{stage.size} px" + (f", {'+'.join(stage.frozen)} frozen" if stage.frozen else "")


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.0f} ({min(values):.0f}-{max(values):.0f})"


def _time(seconds: Sequence[float], whole: float) -> str:
    low, middle, high = np.percentile(np.array(seconds) * 1000, [25, 50, 75])
    return f"{middle:.1f} ({low:.1f}-{high:.1f}), {middle / whole / 10:.0f} %"
