"""Prometheus text files, as the node exporter's textfile collector reads them: replaced whole, never seen half."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Metric:
    """A gauge: its name, what it means, and a value for each set of labels."""

    name: str
    meaning: str
    values: Sequence[tuple[Labels, float]]


def write(path: Path, metrics: Sequence[Metric]) -> None:
    """Replace a text file at once: the collector sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The collector takes only names that end in .prom; a process id keeps two writers apart.
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(render(metrics), encoding="utf-8")
    partial.replace(path)


def render(metrics: Sequence[Metric]) -> str:
    """Return the text exposition format, version 0.0.4."""
    lines: list[str] = []
    for metric in metrics:
        lines += [f"# HELP {metric.name} {metric.meaning}", f"# TYPE {metric.name} gauge"]
        lines += [f"{metric.name}{_labels(labels)} {float(value)!r}" for labels, value in metric.values]
    return "\n".join(lines) + "\n"


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in sorted(labels.items())) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
