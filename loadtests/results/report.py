"""Report: a run as Markdown, HTML and PNG, from its record alone."""

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

PICTURE = "latency.png"
MARKDOWN = "report.md"
HTML = "report.html"
_HEAD = ("stage", "level", "sent/s", "right/s", "p50", "p95", "p99", "longest", "errors", "refused", "targets")
_MOST_REASONS = 10
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; }
.met { color: #26734d; } .missed { color: #b02a2a; } .caution { background: #fff3d6; padding: .6rem; }
"""


def write(record: RunRecord, folder: Path) -> str:
    """Write picture, Markdown and HTML into a folder; return the Markdown."""
    plots.draw(record, folder / PICTURE)
    text = markdown(record)
    (folder / MARKDOWN).write_text(text, encoding="utf-8")
    picture = base64.b64encode((folder / PICTURE).read_bytes()).decode()
    (folder / HTML).write_text(page(record, picture), encoding="utf-8")
    return f"{text}\nReport: {folder / HTML}"


def markdown(record: RunRecord) -> str:
    """Return the report as Markdown."""
    lines = [f"# Load test: {headline(record)}", "", *sentences(record), "", f"![latency]({PICTURE})", ""]
    lines += [*_markdown_table(table(record)), "", "Milliseconds. " + _legend(record), ""]
    breakdown = parts_table(record)
    if breakdown:
        told = "From the Server-Timing header; the rest of the way is queue and transport."
        lines += [*_markdown_table(breakdown), "", told, ""]
    lines += [f"- {count} x {reason}" for reason, count in reasons(record)]
    return "\n".join(lines).rstrip() + "\n"


def page(record: RunRecord, picture: str) -> str:
    """Return the report as one HTML page; ``picture`` is a PNG in base64."""
    met = summary.judge(summary.points(record), Slo(**record.targets)).met
    verdict, *others = sentences(record)
    caution = summary.bottleneck(record)
    told = "".join(
        f'<p class="{"caution" if caution and line == caution else "said"}">{html.escape(line)}</p>' for line in others
    )
    faults = "".join(f"<li>{count} x {html.escape(reason)}</li>" for reason, count in reasons(record))
    title = html.escape(f"Load test: {headline(record)}")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f'<h1>{title}</h1><p class="{"met" if met else "missed"}"><strong>{html.escape(verdict)}</strong></p>{told}'
        f'<img alt="latency and its parts" src="data:image/png;base64,{picture}">{_html_table(table(record))}'
        f"<p>Milliseconds. {html.escape(_legend(record))}</p>{_html_table(parts_table(record))}"
        f"<ul>{faults}</ul></html>\n"
    )


def headline(record: RunRecord) -> str:
    """Return what was done in a few words."""
    loop = f"open loop, {record.arrivals} arrivals" if record.loop == "open" else "closed loop (Locust)"
    return f"{record.shape}, {loop}"


def sentences(record: RunRecord) -> list[str]:
    """Return what the run says, the verdict first."""
    found, slo = summary.points(record), Slo(**record.targets)
    said = [_verdict(record, found, slo)]
    said += [_held(record, found, slo)] if record.shape == "steps" and found else []
    when = datetime.fromtimestamp(record.starts_s[0], UTC).strftime("%Y-%m-%d %H:%M UTC") if record.starts_s else ""
    said.append(f"{when}, {record.url}, {record.machine}. Sent: {record.traffic}.")
    said.append("Every answer had to carry the label that its photograph got in one request before the load.")
    if record.right is not None:
        said.append(f"That label was the right one for {record.right:.1%} of the photographs.")
    loads = summary.generator_load(record)
    if loads:
        name = "Locust" if record.loop == "closed" else "The generator"
        said.append(f"{name} used {' + '.join(f'{share:.0%}' for share in loads.values())} of a core by process.")
    caution = summary.bottleneck(record)
    return [*said, caution] if caution else said


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
    for tally in record.ledger.seconds.values():
        total.update(tally.reasons)
    return total.most_common(_MOST_REASONS)


def line(point: Point) -> str:
    """Return a point as one line for a terminal."""
    return (
        f"{point.stage.name:>10} {point.stage.level:6g}: {point.ok_rate:6.1f}/s right, p50 {_ms(point.p50_ms)}, "
        f"p99 {_ms(point.p99_ms)} ms, errors {point.error_share:.2%}, refused {point.refused}"
    )


def _verdict(record: RunRecord, found: Sequence[Point], slo: Slo) -> str:
    targets = f"p99 at most {slo.p99_ms:g} ms, errors at most {slo.error_share:.2%}"
    partial = "Interrupted; until then: " if record.interrupted else ""
    verdict = summary.judge(found, slo)
    if verdict.met:
        return f"{partial}Targets met ({targets})."
    return f"{partial}Targets missed ({targets}): {'; '.join(verdict.misses)}."


def _held(record: RunRecord, found: Sequence[Point], slo: Slo) -> str:
    unit = "arrivals/s" if record.loop == "open" else "users"
    held, knee = summary.highest_held(found, slo), summary.knee(found)
    first = f"The highest level that met both: {held.stage.level:g} {unit}." if held else "No level met both."
    more = f" The knee is at {knee.stage.level:g} {unit}: beyond it, more adds less than 5 %." if knee else ""
    return first + more


def _row(point: Point, slo: Slo) -> tuple[str, ...]:
    counts = (f"{point.wrong + point.failed} ({point.error_share:.2%})", str(point.refused))
    mark = ("met" if point.meets(slo) else "missed") + ("" if point.stage.judged else " (not judged)")
    times = (point.p50_ms, point.p95_ms, point.p99_ms, point.longest_ms)
    rates = (f"{point.sent_rate:.1f}", f"{point.ok_rate:.1f}")
    return (point.stage.name, f"{point.stage.level:g}", *rates, *(_ms(value) for value in times), *counts, mark)


def _legend(record: RunRecord) -> str:
    if record.loop == "open":
        return (
            "Latency runs from when a request was due, so that requests which had to wait for slow ones before them "
            "count in full (coordinated omission is corrected). Rejected: invalid bodies that got their 4xx."
        )
    return (
        "Latency counts from when a user sent the request. A closed loop's users slow down with the service: it hides "
        "what independent clients would wait (coordinated omission); open loop shows it. Rejected: invalid bodies "
        "that got their 4xx."
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
