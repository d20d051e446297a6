"""The report of a run: report.md to read, metrics.json for programs, two plots, and a Prometheus text file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from monitoring import feedback as feedbacks
from monitoring.feedback import Summary
from monitoring.online.metrics import judged
from monitoring.online.offline import Agreement
from monitoring.online.prediction_log import Entry

_WORST = 15


@dataclass(frozen=True)
class Results:
    """Everything that the report of a run shows; None where it was not measured.

    ``names`` has the images' names by their digest, ``against`` is `metrics.against_offline`.
    """

    run: str
    url: str
    entries: Sequence[Entry]
    summary: Mapping[str, Any]
    names: Mapping[str, str]
    against: Mapping[str, Any] | None = None
    agreement: Agreement | None = None
    feedback: Summary | None = None


def write(results: Results, folder: Path) -> None:
    """Write report.md, metrics.json, reliability.png and latency.png."""
    from monitoring.online import plots  # here: matplotlib takes seconds to import, and posting does not need it

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(figures(results), indent=1) + "\n", encoding="utf-8")
    names = plots.draw(folder, judged(results.entries), [entry.latency_s for entry in results.entries if entry.ok])
    (folder / "report.md").write_text(markdown(results, names), encoding="utf-8")


def figures(results: Results) -> dict[str, Any]:
    """Return all the metrics, as JSON can hold them."""
    extra = {"agreement": results.agreement, "feedback": results.feedback}
    return {
        "run": results.run,
        "url": results.url,
        **results.summary,
        "offline": results.against,
        **{name: None if value is None else vars(value) for name, value in extra.items()},
    }


def markdown(results: Results, plots: Sequence[str]) -> str:
    """Return the report's text; ``plots`` are the names of its plots."""
    parts = [
        f"# Online evaluation {results.run}",
        verdict(results),
        _counts(results),
        _worst(results.summary),
        _mistakes(results),
        _feedback(results.feedback),
        *(f"![{name.removesuffix('.png')}]({name})" for name in plots),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def write_textfile(results: Results, path: Path) -> None:
    """Replace a Prometheus text file with the metrics of the run."""
    summary = results.summary
    registry = CollectorRegistry()
    models = {"models": ", ".join(summary["models"])}

    def gauge(name: str, text: str, values: Mapping[str, float], label: str | None = None) -> None:
        """Register a gauge; ``values`` by the value of ``label``, or one without."""
        metric = Gauge(f"visionserve_live_{name}", text, [*([label] if label else []), *models], registry=registry)
        for key, value in values.items():
            metric.labels(**({label: key} if label else {}), **models).set(value)

    outcomes = {name: summary[name] for name in ("answered", "unreadable")}
    outcomes["rejected"] = sum(summary["rejected"].values())
    gauge("images", "Labelled images of the last run.", outcomes, "outcome")
    if "latency_s" in summary:
        quantiles = {"0.5": "p50", "0.9": "p90", "0.95": "p95", "0.99": "p99"}
        latency_s = {quantile: summary["latency_s"][name] for quantile, name in quantiles.items()}
        gauge("latency_seconds", "Latency of the last run at the client.", latency_s, "quantile")
    if "top1" in summary:
        low, high = summary["top1_interval"]
        gauge("accuracy", "Share of correct predictions.", {"": summary["top1"]})
        gauge("accuracy_low", "Lower bound of its 95 % interval.", {"": low})
        gauge("accuracy_high", "Upper bound of its 95 % interval.", {"": high})
        gauge("top5_accuracy", "Share with the label among the best five.", {"": summary["top5"]})
        gauge("calibration_error", "Expected calibration error.", {"": summary["calibration_error"]})
    if results.against is not None:
        gauge("offline_accuracy", "Accuracy on the model card.", {"": results.against["offline_top1"]})
        gauge("below_offline", "1 when the whole interval is below the card's.", {"": results.against["below"]})
    if results.agreement is not None and results.agreement.images:
        share = results.agreement.same_label / results.agreement.images
        gauge("agreement", "Share answered as in the same process.", {"": share})
    if results.feedback is not None:
        verdicts = {"right": results.feedback.right, "wrong": results.feedback.wrong}
        gauge("feedback", "Verdicts of users; a selected sample.", verdicts, "verdict")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_to_textfile(str(path), registry)


def verdict(results: Results) -> str:
    """Return the result in one sentence."""
    summary, against = results.summary, results.against
    if "top1" not in summary:
        return "**No labelled image was answered, so the accuracy is unknown.**"
    low, high = summary["top1_interval"]
    sentence = f"**{_percent(summary['top1'])} correct** (95 % interval {_percent(low)} to {_percent(high)})"
    if against is None:
        return f"{sentence}; the model's card states no accuracy to compare with."
    offline = f"{_percent(against['offline_top1'])} of the offline evaluation"
    if against["below"]:
        return f"{sentence}: **below** the {offline}. Check the worst labels, drift, and the posted images."
    where = "inside" if against["inside_live_interval"] else "outside"
    return f"{sentence}: not below the {offline}, which lies {where} this interval."


def _counts(results: Results) -> str:
    summary, agreement = results.summary, results.agreement
    rows = [
        ("service", results.url),
        ("model", ", ".join(summary["models"]) or "none answered"),
        ("images", f"{summary['images']}, {summary['answered']} answered"),
        ("rejected", ", ".join(f"{count} x {code}" for code, count in summary["rejected"].items()) or "none"),
        ("unreadable", str(summary["unreadable"])),
        ("label unknown to the model", f"{summary['labels_unknown_to_the_model']} images, not counted in the accuracy"),
    ]
    if "top1" in summary:
        rows += [
            ("label among the best five", _percent(summary["top5"])),
            ("expected calibration error", _percent(summary["calibration_error"])),
            ("mean predicted probability", _percent(summary["mean_confidence"])),
        ]
    if "latency_s" in summary:
        percentiles = ", ".join(f"{name} {1000 * seconds:.0f} ms" for name, seconds in summary["latency_s"].items())
        stages = ", ".join(f"{name} {1000 * seconds:.1f} ms" for name, seconds in summary["timings_s"].items())
        rows += [("latency at the client", percentiles), ("median stages in the service", stages or "not reported")]
        rows.append(("mean novelty", f"{summary['novelty_mean']:.2f} (0.5 is expected)"))
    if agreement is not None:
        rows.append(("same label as offline", f"{agreement.same_label} of {agreement.images}"))
        rows.append(
            (
                "same probability as offline",
                f"{agreement.same_probability} of {agreement.images}, "
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
    return "\n".join(["## Worst labels", "", "| label | correct | 95 % interval |", "|---|---|---|", *lines])


def _mistakes(results: Results) -> str:
    wrong = [entry for entry in results.entries if entry.ok and entry.label not in (None, entry.prediction)]
    wrong.sort(key=lambda entry: -(entry.probability or 0))
    lines = [
        f"| {results.names.get(entry.image, entry.image[:12])} | {entry.label} | {entry.prediction} | "
        f"{_percent(entry.probability or 0)} | {entry.request_id or ''} |"
        for entry in wrong[:_WORST]
    ]
    head = [
        "## Most confident mistakes",
        "",
        "| image | label | predicted | probability | request |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*head, *lines]) if lines else ""


def _feedback(feedback: Summary | None) -> str:
    if feedback is None:
        return ""
    lines = [
        "## User feedback",
        "",
        f"{feedback.right} answers were judged right, {feedback.wrong} wrong. {feedbacks.BIAS}",
        f"{feedback.joined} of them are requests of the prediction log; its label agrees with "
        f"{feedback.confirmed} of the {feedback.comparable} that have one.",
    ]
    if feedback.confused:
        lines += ["", "| predicted | corrected to | times |", "|---|---|---|"]
        lines += [f"| {predicted} | {label} | {count} |" for predicted, label, count in feedback.confused[:_WORST]]
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
