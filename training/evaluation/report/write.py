"""Write: sections -> report.md, metrics.json and plots/ in one folder."""

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from typing import Any

from training import machine, plotting
from training.evaluation.evaluate import Evidence
from training.evaluation.report import accuracy, calibration, comparison, confusions, heatmaps, labels, risk_coverage
from training.evaluation.report.sections import Section

REPORT = "report.md"
METRICS = "metrics.json"
PLOTS = "plots"
_TEMPLATE = Template("""\
# $name $version on $photographs $split photographs

$architecture, $labels labels, $size x $size pixels. Measured on $date by `python -m training evaluate` with $runtime on
$cores cores ($processor); every figure of this report is in [$metrics]($metrics). The photographs are those of the
manifest `$manifest`.

$sections
""")
_OWN = (accuracy, labels, confusions, calibration, risk_coverage, comparison, heatmaps)


def sections(evidence: Evidence) -> list[Section]:
    """Return the sections of every report, in their order."""
    return [part.section(evidence) for part in _OWN]


def figures(evidence: Evidence, found: Sequence[Section]) -> dict[str, Any]:
    """Return what metrics.json holds."""
    merged: dict[str, Any] = {
        "split": evidence.split,
        "manifest_sha256": evidence.manifest.digest,
        "measured": {
            "date": datetime.now(UTC).date().isoformat(),
            "runtime": evidence.classifier.engine.name,
            "processor": machine.processor(),
            "cores": os.cpu_count(),
        },
    }
    for section in found:
        merged |= {section.key: section.figures} if section.key else section.figures
    return merged


def headline(evidence: Evidence, found: Sequence[Section]) -> dict[str, Any]:
    """Return what ``card.metrics`` holds."""
    merged: dict[str, Any] = {"split": evidence.split}
    for section in found:
        merged |= section.headline
    return merged


def write(folder: Path, evidence: Evidence, found: Sequence[Section], photographs: bool = True) -> None:
    """Write a report; pictures that show photographs of the data set only where ``photographs`` says so."""
    (folder / PLOTS).mkdir(parents=True, exist_ok=True)
    content = figures(evidence, found)
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    (folder / METRICS).write_text(text, encoding="utf-8")
    (folder / REPORT).write_text(_text(evidence, content, found, photographs), encoding="utf-8")
    for plot in (plot for section in found for plot in section.plots):
        if photographs or not plot.photographs:
            plotting.save(plot.figure, folder / PLOTS / f"{plot.name}.png")


def _text(evidence: Evidence, content: dict[str, Any], found: Sequence[Section], photographs: bool) -> str:
    card = evidence.card
    return _TEMPLATE.substitute(
        content["measured"],
        name=card.name,
        version=card.version,
        architecture=card.architecture,
        labels=len(card.labels),
        size=card.input.size,
        split=evidence.split,
        photographs=f"{len(evidence.targets):,}",
        manifest=evidence.manifest.digest[:16],
        metrics=METRICS,
        sections="\n\n".join(_section(section, photographs) for section in found),
    )


def _section(section: Section, photographs: bool) -> str:
    lines = [f"## {section.title}", "", *section.lines]
    for plot in section.plots:
        if photographs or not plot.photographs:
            lines += ["", f"![{plot.caption}]({PLOTS}/{plot.name}.png)", "", f"*{plot.caption}.*"]
        else:
            lines += ["", f"*Photographs are not passed on; `--output` draws them. {plot.caption}.*"]
    return "\n".join(lines)
