"""How often the model is right, as served and in fp32, with intervals."""

from typing import Any

from training.evaluation import bootstrap, metrics
from training.evaluation.evaluate import Evidence
from training.evaluation.report.sections import Section
from training.markdown import interval, percent, table

# Beside each other in the first table: name in metrics.json, what it is called, whether it is a share.
_ROWS = (
    ("top1", "top-1", True),
    ("top5", "top-5", True),
    ("macro_f1", "macro F1", True),
    ("weighted_f1", "F1 weighted by photographs", True),
    ("balanced_accuracy", "mean of the labels' accuracies", True),
    ("calibration_error", "expected calibration error, 15 bins", True),
    ("negative_log_likelihood", "negative log likelihood, nats", False),
    ("brier", "Brier score, 0-2", False),
)
_HEADLINE = (
    "photographs",
    "top1",
    "top1_interval",
    "top5",
    "calibration_error",
    "reliability",
    "macro_f1",
    "weighted_f1",
    "balanced_accuracy",
    "negative_log_likelihood",
    "brier",
    "intervals",
)


def section(evidence: Evidence) -> Section:
    """Return the figures of the whole split; metrics.json has them as ``served`` and ``fp32``."""
    served, fp32 = (_figures(logits, evidence) for logits in (evidence.served.logits, evidence.exact))
    figures = {"served": served, "fp32": fp32, "novelty_mean": metrics.rounded(evidence.served.novelty.mean())}
    headline = {name: served[name] for name in _HEADLINE} | {"top1_fp32": fp32["top1"]}
    return Section("Accuracy", _lines(served, fp32, evidence), figures, headline=headline)


def _figures(logits: Any, evidence: Evidence) -> dict[str, Any]:
    found = metrics.summarise(logits, evidence.targets, evidence.card.temperature)
    return found | {"intervals": bootstrap.intervals(logits, evidence.targets, evidence.card.temperature)}


def _lines(served: dict[str, Any], fp32: dict[str, Any], evidence: Evidence) -> list[str]:
    rows = [(said, *(_cell(found, name, share) for found in (served, fp32))) for name, said, share in _ROWS]
    shown = len({int(target) for target in evidence.targets})
    lines = [
        *table(["", "as served", "fp32"], rows),
        "",
        f"In brackets 95 % intervals by bootstrap: {bootstrap.RESAMPLES:,} resamples of the photographs. Wilson's "
        f"interval of top-1 is {interval(served['top1_interval'])} as served, {interval(fp32['top1_interval'])} in "
        "fp32. Noise only adds to a calibration error, so its interval leans upwards. Macro F1 is the mean over the "
        f"{shown} labels that have photographs.",
    ]
    if len(evidence.card.labels) <= 5:
        lines += ["", f"With {len(evidence.card.labels)} labels, top-5 is 100 % by its making."]
    return lines


def _cell(found: dict[str, Any], name: str, share: bool) -> str:
    value = percent(found[name], 2) if share else f"{found[name]:.4f}"
    if name not in found["intervals"]:
        return value
    low, high = found["intervals"][name]
    return f"{value} ({interval((low, high)) if share else f'{low:.3f}-{high:.3f}'})"
