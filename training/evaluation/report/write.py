"""Write: sections -> report.md, metrics.json and plots/ in one folder."""

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from typing import Any

from training import machine, plotting
from training.evaluation.evaluate import EvaluationData
from training.evaluation.report import accuracy, labels, risk_coverage, sheets
from training.evaluation.report.sections import Section

REPORT = "report.md"
METRICS = "metrics.json"
PLOTS = "plots"
_TEMPLATE = Template("""\
# $name $version on $images $split images

$architecture, $labels labels, $size x $size pixels. Measured on $date by `python -m training evaluate` with $runtime on
$cores cores ($processor); every number of this report is in [$metrics]($metrics). The images are those of the
manifest `$manifest`.

$sections
""")
_SECTIONS = (
    accuracy.accuracy,
    labels.labels,
    labels.confusions,
    accuracy.calibration,
    risk_coverage.section,
    accuracy.served_and_fp32,
    sheets.heatmaps,
)


def all_sections(data: EvaluationData) -> list[Section]:
    """Return the sections of every report, in their order."""
    return [section(data) for section in _SECTIONS]


def figures(data: EvaluationData, sections: Sequence[Section]) -> dict[str, Any]:
    """Return what metrics.json holds."""
    merged: dict[str, Any] = {
        "split": data.split,
        "manifest_sha256": data.manifest.digest,
        "measured": {
            "date": datetime.now(UTC).date().isoformat(),
            "runtime": data.classifier.engine.name,
            "processor": machine.processor(),
            "cores": os.cpu_count(),
        },
    }
    for section in sections:
        merged |= {section.key: section.figures} if section.key else section.figures
    return merged


def headline(data: EvaluationData, sections: Sequence[Section]) -> dict[str, Any]:
    """Return what ``card.metrics`` holds."""
    merged: dict[str, Any] = {"split": data.split}
    for section in sections:
        merged |= section.headline
    return merged


def write(folder: Path, data: EvaluationData, sections: Sequence[Section], photographs: bool = True) -> None:
    """Write a report; figures that show images of the data set only where ``photographs`` says so."""
    (folder / PLOTS).mkdir(parents=True, exist_ok=True)
    content = figures(data, sections)
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    (folder / METRICS).write_text(text, encoding="utf-8")
    (folder / REPORT).write_text(_text(data, content, sections, photographs), encoding="utf-8")
    for plot in (plot for section in sections for plot in section.plots):
        if photographs or not plot.photographs:
            plotting.save(plot.figure, folder / PLOTS / f"{plot.name}.png")


def _text(data: EvaluationData, content: dict[str, Any], sections: Sequence[Section], photographs: bool) -> str:
    card = data.card
    return _TEMPLATE.substitute(
        content["measured"],
        name=card.name,
        version=card.version,
        architecture=card.architecture,
        labels=len(card.labels),
        size=card.input.size,
        split=data.split,
        images=f"{len(data.targets):,}",
        manifest=data.manifest.digest[:16],
        metrics=METRICS,
        sections="\n\n".join(_section(section, photographs) for section in sections),
    )


def _section(section: Section, photographs: bool) -> str:
    lines = [f"## {section.title}", "", *section.lines]
    for plot in section.plots:
        if photographs or not plot.photographs:
            lines += ["", f"![{plot.caption}]({PLOTS}/{plot.name}.png)", "", f"*{plot.caption}.*"]
        else:
            lines += ["", f"*A bundle holds no images; `evaluate --output FOLDER` draws this figure. {plot.caption}.*"]
    return "\n".join(lines)
