"""The report of a run: report.md for people, metrics.json for programs, two plots, and a Prometheus text file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monitoring import feedback as feedbacks
from monitoring.feedback import Summary
from monitoring.online.metrics import judged
from monitoring.online.offline import Agreement
from monitoring.online.prediction_log import Photograph
from monitoring.textfile import Metric

_WORST = 15


@dataclass(frozen=True)
class Findings:
    """Everything there is to report about a run; what is not known is None.

    ``names`` gives the photographs' names by their digest, ``against`` is `figures.against_offline`.
    """

    run: str
    url: str
    entries: Sequence[Photograph]
    summary: Mapping[str, Any]
    names: Mapping[str, str]
    against: Mapping[str, Any] | None = None
    agreement: Agreement | None = None
    feedback: Summary | None = None


def write(findings: Findings, folder: Path) -> None:
    """Write report.md, metrics.json, reliability.png and latency.png."""
    from monitoring.online import plots  # here: drawing takes seconds to import, and posting does not need it

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(figures(findings), indent=1) + "\n", encoding="utf-8")
    drawn = plots.draw(folder, judged(findings.entries), [entry.latency_s for entry in findings.entries if entry.ok])
    (folder / "report.md").write_text(markdown(findings, drawn), encoding="utf-8")


def figures(findings: Findings) -> dict[str, Any]:
    """Return all the figures, as JSON can hold them."""
    extra = {"agreement": findings.agreement, "feedback": findings.feedback}
    return {
        "run": findings.run,
        "url": findings.url,
        **findings.summary,
        "offline": findings.against,
        **{name: None if value is None else vars(value) for name, value in extra.items()},
    }


def markdown(findings: Findings, drawn: Sequence[str]) -> str:
    """Return the report's text; ``drawn`` are the names of its plots."""
    parts = [
        f"# Is it still right? {findings.run}",
        verdict(findings),
        _counts(findings),
        _worst(findings.summary),
        _mistakes(findings),
        _feedback(findings.feedback),
        *(f"![{name.removesuffix('.png')}]({name})" for name in drawn),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def metrics(findings: Findings) -> list[Metric]:
    """Return the figures as Prometheus gauges."""
    summary, models = findings.summary, {"models": ", ".join(findings.summary["models"])}
    outcomes = {name: summary[name] for name in ("answered", "unreadable")}
    outcomes["refused"] = sum(summary["refused"].values())
    found = [
        Metric(
            "visionserve_live_photographs",
            "Labelled photographs of the last run.",
            [({"outcome": name} | models, count) for name, count in outcomes.items()],
        )
    ]
    if "latency_s" in summary:
        quantiles = {"0.5": "p50", "0.9": "p90", "0.95": "p95", "0.99": "p99"}
        values = [({"quantile": quantile} | models, summary["latency_s"][name]) for quantile, name in quantiles.items()]
        found.append(Metric("visionserve_live_latency_seconds", "Latency of the last run, at the client.", values))
    if "top1" in summary:
        low, high = summary["top1_interval"]
        found += [
            Metric(
                "visionserve_live_accuracy",
                "Share of the labelled photographs recognised.",
                [(models, summary["top1"])],
            ),
            Metric("visionserve_live_accuracy_low", "Lower end of its 95 % interval.", [(models, low)]),
            Metric("visionserve_live_accuracy_high", "Upper end of its 95 % interval.", [(models, high)]),
            Metric("visionserve_live_top5_accuracy", "Share with the label among five.", [(models, summary["top5"])]),
            Metric(
                "visionserve_live_calibration_error",
                "Expected calibration error.",
                [(models, summary["calibration_error"])],
            ),
        ]
    if findings.against is not None:
        offline, below = findings.against["offline_top1"], float(findings.against["below"])
        found += [
            Metric("visionserve_live_offline_accuracy", "What the model's card promises.", [(models, offline)]),
            Metric(
                "visionserve_live_below_offline", "1 when the whole interval is below the card's.", [(models, below)]
            ),
        ]
    if findings.agreement is not None and findings.agreement.photographs:
        share = findings.agreement.same_label / findings.agreement.photographs
        found.append(Metric("visionserve_live_agreement", "Share answered as offline.", [(models, share)]))
    if findings.feedback is not None:
        said = {"right": findings.feedback.right, "wrong": findings.feedback.wrong}
        values = [({"verdict": name}, count) for name, count in said.items()]
        found.append(Metric("visionserve_live_feedback", "Answers that people judged; a selected sample.", values))
    return found


def verdict(findings: Findings) -> str:
    """Return the one sentence that matters."""
    summary, against = findings.summary, findings.against
    if "top1" not in summary:
        return "**No labelled photograph was answered, so nothing can be said of the accuracy.**"
    low, high = summary["top1_interval"]
    said = f"**{_percent(summary['top1'])} right** (95 % interval {_percent(low)} to {_percent(high)})"
    if against is None:
        return f"{said}; the model's card states no accuracy to compare with."
    promised = f"{_percent(against['offline_top1'])} of the offline evaluation"
    if against["below"]:
        return f"{said}: **below** the {promised}. Look at the worst labels, at drift, and at what was posted."
    where = "inside" if against["inside_live_interval"] else "outside"
    return f"{said}: not below the {promised}, which lies {where} this interval."


def _counts(findings: Findings) -> str:
    summary, agreement = findings.summary, findings.agreement
    rows = [
        ("service", findings.url),
        ("model", ", ".join(summary["models"]) or "none answered"),
        ("photographs", f"{summary['photographs']}, {summary['answered']} answered"),
        ("refused", ", ".join(f"{count} x {code}" for code, count in summary["refused"].items()) or "none"),
        ("unreadable", str(summary["unreadable"])),
        ("labels that the model lacks", f"{summary['labels_unknown_to_the_model']} photographs, not judged"),
    ]
    if "top1" in summary:
        rows += [
            ("label among the best five", _percent(summary["top5"])),
            ("expected calibration error", _percent(summary["calibration_error"])),
            ("mean stated probability", _percent(summary["mean_confidence"])),
        ]
    if "latency_s" in summary:
        spoken = ", ".join(f"{name} {1000 * seconds:.0f} ms" for name, seconds in summary["latency_s"].items())
        stages = ", ".join(f"{name} {1000 * seconds:.1f} ms" for name, seconds in summary["timings_s"].items())
        rows += [("latency at the client", spoken), ("median stages in the service", stages or "not stated")]
        rows.append(("mean novelty", f"{summary['novelty_mean']:.2f} (0.5 is usual)"))
    if agreement is not None:
        rows.append(("same label as offline", f"{agreement.same_label} of {agreement.photographs}"))
        rows.append(
            (
                "same probability as offline",
                f"{agreement.same_probability} of {agreement.photographs}, "
                f"largest difference {agreement.largest_difference:.4f}",
            )
        )
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _worst(summary: Mapping[str, Any]) -> str:
    missed = [row for row in summary.get("labels", []) if row["accuracy"] < 1][:_WORST]
    if not missed:
        return ""
    lines = [
        f"| {row['label']} | {row['right']} of {row['count']} | {_percent(row['interval'][0])} to "
        f"{_percent(row['interval'][1])} |"
        for row in missed
    ]
    return "\n".join(["## The worst labels", "", "| label | recognised | 95 % interval |", "|---|---|---|", *lines])


def _mistakes(findings: Findings) -> str:
    wrong = [entry for entry in findings.entries if entry.ok and entry.label not in (None, entry.prediction)]
    wrong.sort(key=lambda entry: -(entry.probability or 0))
    lines = [
        f"| {findings.names.get(entry.photograph, entry.photograph[:12])} | {entry.label} | {entry.prediction} | "
        f"{_percent(entry.probability or 0)} | {entry.request_id or ''} |"
        for entry in wrong[:_WORST]
    ]
    head = [
        "## The surest mistakes",
        "",
        "| photograph | shows | said | probability | request |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*head, *lines]) if lines else ""


def _feedback(said: Summary | None) -> str:
    if said is None:
        return ""
    lines = [
        "## What people said",
        "",
        f"{said.right} answers were called right, {said.wrong} wrong. {feedbacks.BIAS}",
        f"{said.joined} of them are requests of the live log; its label bears out {said.confirmed} of the "
        f"{said.comparable} that name one.",
    ]
    if said.confused:
        lines += ["", "| answered | really | times |", "|---|---|---|"]
        lines += [f"| {predicted} | {label} | {count} |" for predicted, label, count in said.confused[:_WORST]]
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
