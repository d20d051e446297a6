"""`python -m loadtests report`: a run as Markdown, HTML and PNG, from its record alone."""

import argparse
import base64
import html
import math
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from loadtests.results import plots, summary
from loadtests.results.run_record import RunRecord
from loadtests.results.summary import Point, Slo

FIGURE = "latency.png"
MARKDOWN = "report.md"
HTML = "report.html"
_HEAD = (
    "stage",
    "level",
    "sent/s",
    "correct/s",
    "p50",
    "p95",
    "p99",
    "longest",
    "errors",
    "failed, p50",
    "rejected",
    "generator",
    "targets",
)
_MAX_REASONS = 10
_FEW_ANSWERS = 100  # the 99th of a hundred is the second longest
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; }
.met { color: #26734d; } .missed { color: #b02a2a; } .caution { background: #fff3d6; padding: .6rem; }
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `report`."""
    parser.add_argument("folder", type=Path, help="the folder that holds run.json")


def run(args: argparse.Namespace) -> int:
    """Write the report of an earlier run again."""
    print(write(RunRecord.load(args.folder), args.folder))
    return 0


def write(record: RunRecord, folder: Path) -> str:
    """Write figure, Markdown and HTML into a folder; return the Markdown."""
    plots.draw(record, folder / FIGURE)
    text = markdown(record)
    (folder / MARKDOWN).write_text(text, encoding="utf-8")
    figure = base64.b64encode((folder / FIGURE).read_bytes()).decode()
    (folder / HTML).write_text(page(record, figure), encoding="utf-8")
    return f"{text}\nReport: {folder / HTML}"


def markdown(record: RunRecord) -> str:
    """Return the report as Markdown."""
    lines = [f"# Load test: {headline(record)}", "", *sentences(record), "", f"![latency]({FIGURE})", ""]
    lines += [*_markdown_table(table(record)), "", "Milliseconds. " + _legend(record), ""]
    breakdown = parts_table(record)
    if breakdown:
        source = "From the Server-Timing header; the rest is queue and transport."
        lines += [*_markdown_table(breakdown), "", source, ""]
    lines += [f"- {count} x {reason}" for reason, count in reasons(record)]
    return "\n".join(lines).rstrip() + "\n"


def page(record: RunRecord, figure: str) -> str:
    """Return the report as one HTML page; ``figure`` is a PNG in base64."""
    met = summary.judge(summary.points(record), Slo(**record.targets)).met
    verdict, *others = sentences(record)
    caution = summary.bottleneck(summary.points(record), record.loop)
    paragraphs = "".join(
        f'<p class="{"caution" if caution and line == caution else "fact"}">{html.escape(line)}</p>' for line in others
    )
    faults = "".join(f"<li>{count} x {html.escape(reason)}</li>" for reason, count in reasons(record))
    title = html.escape(f"Load test: {headline(record)}")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f'<h1>{title}</h1><p class="{"met" if met else "missed"}"><strong>{html.escape(verdict)}</strong></p>'
        f"{paragraphs}"
        f'<img alt="latency and its parts" src="data:image/png;base64,{figure}">{_html_table(table(record))}'
        f"<p>Milliseconds. {html.escape(_legend(record))}</p>{_html_table(parts_table(record))}"
        f"<ul>{faults}</ul></html>\n"
    )


def headline(record: RunRecord) -> str:
    """Return the kind of run in a few words."""
    loop = f"open loop, {record.arrivals} arrivals" if record.loop == "open" else "closed loop (Locust)"
    return f"{record.shape}, {loop}"


def sentences(record: RunRecord) -> list[str]:
    """Return the result in sentences, the verdict first."""
    points, slo = summary.points(record), Slo(**record.targets)
    lines = [_verdict(record, points, slo)]
    lines += [_held(record, points, slo)] if record.shape == "steps" and points else []
    when = datetime.fromtimestamp(record.starts_s[0], UTC).strftime("%Y-%m-%d %H:%M UTC") if record.starts_s else ""
    lines.append(f"{when}, {record.url}, {record.machine}. Sent: {record.sent}.")
    lines.append("Every answer had to have the label that its image got in one request before the load.")
    if record.accuracy is not None:
        lines.append(f"That label was correct for {record.accuracy:.1%} of the images.")
    few = [point for point in points if point.stage.judged and 0 < point.ok + point.wrong < _FEW_ANSWERS]
    if few:
        stages = ", ".join(f"{_level(point)} ({point.ok + point.wrong})" for point in few)
        lines.append(f"Fewer than {_FEW_ANSWERS} answers, of which p99 is the longest: {stages}.")
    caution = summary.bottleneck(points, record.loop)
    return [*lines, caution] if caution else lines


def table(record: RunRecord) -> list[tuple[str, ...]]:
    """Return the stages as rows of text, the heading first."""
    slo = Slo(**record.targets)
    return [_HEAD, *(_row(point, slo) for point in summary.points(record))]


def parts_table(record: RunRecord) -> list[tuple[str, ...]]:
    """Return the mean parts of each stage as rows of text, the heading first; empty without Server-Timing."""
    timed = [point for point in summary.points(record) if point.parts_ms]
    if not timed:
        return []
    names = tuple(timed[0].parts_ms)
    rows = [(_level(point), *(f"{point.parts_ms[name]:.1f}" for name in names)) for point in timed]
    return [("mean ms", *names), *rows]


def reasons(record: RunRecord) -> list[tuple[str, int]]:
    """Return what went wrong, the most frequent first."""
    total: Counter[str] = Counter()
    for interval in record.stats.seconds.values():
        total.update(interval.reasons)
    return total.most_common(_MAX_REASONS)


def line(point: Point) -> str:
    """Return a point as one line for a terminal."""
    return (
        f"{point.stage.name:>10} {point.stage.level:6g}: {point.ok_rate:6.1f}/s correct, p50 {_ms(point.p50_ms)}, "
        f"p99 {_ms(point.p99_ms)} ms, errors {point.error_share:.2%}, rejected {point.rejected}"
    )


def _verdict(record: RunRecord, points: Sequence[Point], slo: Slo) -> str:
    targets = f"p99 at most {slo.p99_ms:g} ms, errors at most {slo.error_share:.2%}"
    partial = "Interrupted; until then: " if record.interrupted else ""
    verdict = summary.judge(points, slo)
    if verdict.met:
        return f"{partial}Targets met ({targets})."
    return f"{partial}Targets missed ({targets}): {'; '.join(verdict.misses)}."


def _held(record: RunRecord, points: Sequence[Point], slo: Slo) -> str:
    unit = "arrivals/s" if record.loop == "open" else "users"
    highest, knee = summary.highest_held(points, slo), summary.knee(points)
    first = f"The highest level that met both: {highest.stage.level:g} {unit}." if highest else "No level met both."
    more = f" The knee is at {knee.stage.level:g} {unit}: beyond it, more adds less than 5 %." if knee else ""
    return first + more


def _row(point: Point, slo: Slo) -> tuple[str, ...]:
    counts = (f"{point.wrong + point.failed} ({point.error_share:.2%})", _ms(point.failed_p50_ms), str(point.rejected))
    generator = f"{point.generator_share:.0%}"
    mark = ("met" if point.meets(slo) else "missed") + ("" if point.stage.judged else " (not judged)")
    times = (point.p50_ms, point.p95_ms, point.p99_ms, point.longest_ms)
    rates = (f"{point.sent_rate:.1f}", f"{point.ok_rate:.1f}")
    return (
        point.stage.name,
        f"{point.stage.level:g}",
        *rates,
        *(_ms(value) for value in times),
        *counts,
        generator,
        mark,
    )


def _legend(record: RunRecord) -> str:
    apart = (
        "Percentiles are those of answers; failed requests are counted as errors, with their own median. Rejected: "
        "invalid bodies that got their 4xx. Generator: share of a core that its busiest process used."
    )
    if record.loop == "open":
        return (
            "Latency counts from when a request was due, so that requests which had to wait for slow ones before them "
            f"count in full (coordinated omission is corrected). {apart}"
        )
    return (
        "Latency counts from when a user sent the request. A closed loop's users slow down with the service: it hides "
        f"what independent clients would wait (coordinated omission); open loop shows it. {apart}"
    )


def _level(point: Point) -> str:
    return f"{point.stage.name} {point.stage.level:g}"


def _ms(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _markdown_table(rows: list[tuple[str, ...]]) -> list[str]:
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return [head, "|---" + "|---:" * (len(rows[0]) - 1) + "|", *body]


def _html_table(rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:])
    return f"<table><tr>{head}</tr>{body}</table>"
