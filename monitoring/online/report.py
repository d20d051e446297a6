"""The report of a run: report.md to read, metrics.json for programs, mistakes.csv to review, two plots, a text file."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
    """Everything that the report of one model version in a run shows; None where it was not measured.

    ``model`` and ``version`` are empty when nothing was answered. ``entries`` are the images that it answered and those
    that nothing answered. ``names`` has the images' names by their digest, ``against`` is `comparison.against_card` and
    ``card`` the name and version of the card, if there is one. ``elsewhere`` has the card's figures of images that are
    not those of its own test split, by name.
    """

    run: str
    url: str
    model: str
    version: str
    entries: Sequence[Entry]
    summary: Mapping[str, Any]
    names: Mapping[str, str]
    card: tuple[str, str] | None = None
    against: Mapping[str, Any] | None = None
    agreement: Agreement | None = None
    feedback: Summary | None = None
    elsewhere: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seen: int = 0  # posted images that the model was trained or chosen on


def write(results: Results, folder: Path) -> None:
    """Write report.md, metrics.json, mistakes.csv, reliability.png and latency.png."""
    from monitoring.online import plots  # here: matplotlib takes seconds to import, and posting does not need it

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(figures(results), indent=1) + "\n", encoding="utf-8")
    _write_mistakes(results, folder / "mistakes.csv")
    names = plots.draw(folder, judged(results.entries), [entry.latency_s for entry in results.entries if entry.ok])
    (folder / "report.md").write_text(markdown(results, names), encoding="utf-8")


def _write_mistakes(results: Results, path: Path) -> None:
    """Write the wrong predictions, the most confident first: wrong labels and images to train with are among them."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "label", "predicted", "probability", "novelty", "request_id"])
        for entry in _wrong(results.entries):
            name = results.names.get(entry.image, entry.image)
            writer.writerow([name, entry.label, entry.prediction, entry.probability, entry.novelty, entry.request_id])


def _wrong(entries: Sequence[Entry]) -> list[Entry]:
    wrong = [entry for entry in entries if entry.ok and entry.label is not None and not entry.right]
    return sorted(wrong, key=lambda entry: -(entry.probability or 0))


def figures(results: Results) -> dict[str, Any]:
    """Return all the metrics, as JSON can hold them."""
    extra = {"agreement": results.agreement, "feedback": results.feedback}
    return {
        "run": results.run,
        "url": results.url,
        "model": results.model,
        "version": results.version,
        "images_of_training": results.seen,
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


def write_textfile(all_results: Sequence[Results], path: Path) -> None:
    """Replace a Prometheus text file with the metrics of a run, a series for each model version that answered."""
    registry = CollectorRegistry()
    gauges: dict[str, Gauge] = {}

    def put(
        name: str, text: str, model: Mapping[str, str], values: Mapping[str, float], label: str | None = None
    ) -> None:
        """Set a gauge: ``values`` by the value of ``label``, or one without."""
        if name not in gauges:
            names = [*([label] if label else []), *model]
            gauges[name] = Gauge(f"visionserve_live_{name}", text, names, registry=registry)
        for key, value in values.items():
            gauges[name].labels(**({label: key} if label else {}), **model).set(value)

    for results in all_results:
        summary, model = results.summary, {"model": results.model, "version": results.version}
        outcomes = {name: summary[name] for name in ("answered", "unreadable")}
        outcomes["rejected"] = sum(summary["rejected"].values())
        put("images", "Labelled images of the last run.", model, outcomes, "outcome")
        put("retried_images", "Images that were sent more than once.", model, {"": summary["retried"]})
        if "latency_s" in summary:
            quantiles = {"0.5": "p50", "0.9": "p90", "0.95": "p95", "0.99": "p99"}
            latency_s = {quantile: summary["latency_s"][name] for quantile, name in quantiles.items()}
            put("latency_seconds", "Latency at the client, of the last attempt.", model, latency_s, "quantile")
        if "top1" in summary:
            low, high = summary["top1_interval"]
            put("accuracy", "Share of correct predictions.", model, {"": summary["top1"]})
            put("accuracy_low", "Lower bound of its 95 % interval.", model, {"": low})
            put("accuracy_high", "Upper bound of its 95 % interval.", model, {"": high})
            put("top5_accuracy", "Share with the label among the best five.", model, {"": summary["top5"]})
            put("calibration_error", "Expected calibration error.", model, {"": summary["calibration_error"]})
        if results.against is not None:
            put("offline_accuracy", "Accuracy offline.", model, {"": results.against["offline_top1"]})
            text = "p-value of the one-sided test that the accuracy is not below the offline one."
            put("below_offline_p_value", text, model, {"": results.against["p_value"]})
            put("below_offline", "1 when the accuracy is below the offline one.", model, {"": results.against["below"]})
        if results.agreement is not None and results.agreement.images:
            share = results.agreement.same_label / results.agreement.images
            put("agreement", "Share answered as in the same process.", model, {"": share})
    feedback = all_results[0].feedback
    if feedback is not None:
        verdicts = {"right": feedback.right, "wrong": feedback.wrong}
        put("feedback", "Verdicts of users; a selected sample.", {}, verdicts, "verdict")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_to_textfile(str(path), registry)


def verdict(results: Results) -> str:
    """Return the result in one sentence, or a few."""
    if not results.seen:
        return _compared(results)
    return (
        f"{_compared(results)} **{results.seen} of the posted images are among those that the model was trained or "
        "chosen on: of others it recognises fewer.**"
    )


def _compared(results: Results) -> str:
    summary, against = results.summary, results.against
    if "top1" not in summary:
        return "**No labelled image was answered, so the accuracy is unknown.**"
    low, high = summary["top1_interval"]
    who = f"{results.model} {results.version}"
    sentence = (
        f"{who}: **{_percent(summary['top1'])} correct** of {summary['judged']} images "
        f"(95 % interval {_percent(low)} to {_percent(high)}{_drawn(summary)})"
    )
    if results.card is not None and results.card != (results.model, results.version):
        return f"{sentence}; not compared: the bundle's card is of {' '.join(results.card)}."
    if against is None:
        return f"{sentence}; not compared: the card with an accuracy and the number of its images is missing."
    if against["test"] == "pairs":
        offline = f"the {_percent(against['offline_top1'])} of the bundle on the same images"
    else:
        offline = (
            f"the {_percent(against['offline_top1'])} of the offline evaluation on {against['offline_images']} images"
        )
    p_value = f"one-sided test, p = {against['p_value']:.2g}"
    if against["below"]:
        return f"{sentence}: **below** {offline} ({p_value}). Check the worst labels, drift, and the posted images."
    return f"{sentence}: no evidence that it is below {offline} ({p_value}).{_detectable(against, summary['judged'])}"


def _drawn(summary: Mapping[str, Any]) -> str:
    return f", of other groups than these {summary['groups']}" if summary.get("groups") else ""


def _detectable(against: Mapping[str, Any], count: int) -> str:
    if against["test"] == "pairs":
        return ""
    loss = against["detectable_loss"]
    if loss is None:
        return f" {count} images are too few to show any loss."
    return (
        f" With {count} images a loss of {100 * loss:.1f} points is detected in 80 % of runs, a smaller one in fewer."
    )


def _counts(results: Results) -> str:
    summary, agreement = results.summary, results.agreement
    rows = [
        ("service", results.url),
        ("model", f"{results.model} {results.version}" if results.model else "none answered"),
        ("images", f"{summary['images']}, {summary['answered']} answered"),
        ("rejected", ", ".join(f"{count} x {code}" for code, count in summary["rejected"].items()) or "none"),
        ("unreadable", str(summary["unreadable"])),
        ("sent again", f"{summary['retried']} images, {summary['attempts']} requests in all"),
        ("label unknown to the model", f"{summary['labels_unknown_to_the_model']} images, not counted in the accuracy"),
    ]
    if "top1" in summary:
        rows += [
            ("label among the best five", _percent(summary["top5"])),
            ("expected calibration error", _percent(summary["calibration_error"])),
            ("the same without its bias (95 % interval)", _debiased(summary)),
            ("mean predicted probability", _percent(summary["mean_confidence"])),
        ]
    rows += [(f"the card on images of other origin: {name}", _stated(row)) for name, row in results.elsewhere.items()]
    if "latency_s" in summary:
        percentiles = ", ".join(f"{name} {1000 * seconds:.0f} ms" for name, seconds in summary["latency_s"].items())
        stages = ", ".join(f"{name} {1000 * seconds:.1f} ms" for name, seconds in summary["timings_s"].items())
        rows += [
            ("latency at the client, of the last attempt", percentiles),
            ("median stages in the service", stages or "not reported"),
        ]
        rows.append(("mean novelty", f"{summary['novelty_mean']:.2f} (0.5 is expected)"))
    if agreement is not None:
        unreadable = f"; {agreement.unreadable} more could not be read again" if agreement.unreadable else ""
        rows.append(("same label as offline", f"{agreement.same_label} of {agreement.images}{unreadable}"))
        rows.append(
            (
                "same probability as offline",
                f"{agreement.same_probability} of {agreement.images}, "
                f"largest difference {agreement.largest_difference:.4f}",
            )
        )
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _debiased(summary: Mapping[str, Any]) -> str:
    low, high = summary["calibration_error_debiased_interval"]
    return f"{_percent(summary['calibration_error_debiased'])} ({_percent(low)} to {_percent(high)})"


def _stated(figures: Mapping[str, Any]) -> str:
    """Return what a card states about images of other origin."""
    low, high = figures["top1_interval"]
    groups = f" of {figures['groups']} groups" if "groups" in figures else ""
    return (
        f"{_percent(figures['top1'])} ({_percent(low)} to {_percent(high)}) on {figures['photographs']} images{groups}"
    )


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
    wrong = _wrong(results.entries)
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
