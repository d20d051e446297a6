"""Accuracy and calibration of the whole split, as served and in fp32, and what separates the two."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest

from training.evaluation import intervals, metrics, plots
from training.evaluation.calibration import debiased_error, log_losses, probabilities
from training.evaluation.evaluate import EvaluationData
from training.evaluation.report.sections import Plot, Section
from training.markdown import interval, percent, table
from visionserve.model_card import ModelCard

# Name in metrics.json, name in the report, whether it is a share.
_ACCURACY_ROWS = (
    ("top1", "top-1", True),
    ("top5", "top-5", True),
    ("macro_f1", "macro F1", True),
    ("weighted_f1", "F1 weighted by images", True),
    ("balanced_accuracy", "mean of the labels' accuracies", True),
    ("calibration_error", "expected calibration error, 15 bins", True),
    ("calibration_error_debiased", "the same without its bias", True),
    ("negative_log_likelihood", "negative log likelihood, nats", False),
    ("brier", "Brier score, 0-2", False),
)
_CALIBRATION_ROWS = (
    ("calibration_error", "expected calibration error, 15 equal steps of probability", True),
    ("calibration_error_debiased", "the same without its bias", True),
    ("calibration_error_equal_mass", "expected calibration error, 15 bins of equally many images", True),
    ("negative_log_likelihood", "negative log likelihood, nats", False),
    ("brier", "Brier score, 0-2", False),
)
_HEADLINE = (
    "photographs",
    "top1",
    "top1_interval",
    "top5",
    "calibration_error",
    "calibration_error_debiased",
    "reliability",
    "macro_f1",
    "weighted_f1",
    "balanced_accuracy",
    "negative_log_likelihood",
    "brier",
    "intervals",
)


def accuracy(data: EvaluationData) -> Section:
    """Return the metrics of the whole split; metrics.json has them as ``served`` and ``fp32``."""
    served, fp32 = (_measure(logits, data) for logits in (data.predictions.logits, data.fp32_logits))
    figures = {"served": served, "fp32": fp32, "novelty_mean": metrics.rounded(data.predictions.novelty.mean())}
    headline = {name: served[name] for name in _HEADLINE} | {"top1_fp32": fp32["top1"]}
    return Section("Accuracy", _accuracy_lines(served, fp32, data), figures, headline=headline)


def calibration(data: EvaluationData) -> Section:
    """Return tables and the reliability diagram; the metrics themselves belong to ``served`` and ``fp32``."""
    temperature = data.card.temperature
    served = metrics.summarise(data.predictions.logits, data.targets, temperature)
    rows = [
        (words, *(_value(served[n], share) for n in (f"{name}_before_temperature", name)))
        for name, words, share in _CALIBRATION_ROWS
    ]
    why_not = data.card.provenance.get("temperature_not_fitted")
    lines = [
        f"The temperature stays at 1: {why_not}."
        if why_not
        else f"One temperature, {temperature:g}, was fitted on validation images; it divides the logits and changes no "
        "label, only the probabilities.",
        "",
        *table(["as served", "before temperature", "after"], rows),
    ]
    figure = plots.reliability_diagram(data.predictions.logits, data.targets, temperature)
    return Section("Calibration", lines, plots=[Plot("reliability", figure, "Stated probability against accuracy")])


def served_and_fp32(data: EvaluationData) -> Section:
    """Return agreement, McNemar's test and paired differences; metrics.json has them as ``comparison``."""
    compared = compare(data.predictions.logits, data.fp32_logits, data.targets, data.card.temperature, data.groups)
    top1, likelihood = (compared[f"{name}_difference_interval"] for name in ("top1", "negative_log_likelihood"))
    rows = [
        ("same label", f"{percent(compared['agreement'], 2)}, all but {compared['disagreements']}"),
        ("right only as served", compared["right_only_as_served"]),
        ("right only in fp32", compared["right_only_in_fp32"]),
        ("McNemar's exact p", f"{compared['mcnemar_p']:.3g}"),
        (
            "top-1, as served minus fp32, in points (95 % interval)",
            f"{100 * compared['top1_difference']:+.2f} ({100 * top1[0]:+.2f} to {100 * top1[1]:+.2f})",
        ),
        (
            "negative log likelihood, as served minus fp32 (95 % interval)",
            f"{compared['negative_log_likelihood_difference']:+.4f} ({likelihood[0]:+.4f} to {likelihood[1]:+.4f})",
        ),
    ]
    lines = [
        f"As served: `{data.card.model}` by {data.classifier.engine.name}. In fp32: the network with the "
        "bundle's weights, by PyTorch. The same images, the same temperature; intervals of the paired differences by "
        "Tango's score (top-1) and the studentized bootstrap.",
        "",
        *table(["on the same images", ""], rows),
    ]
    return Section("As served beside fp32", lines, {"agreement": compared["agreement"], "comparison": compared})


def baseline(card: ModelCard) -> str:
    """Return what the linear probe on the initial network's features reached, and what was kept; empty without one."""
    facts = card.provenance.get("baseline")
    if not facts:
        return ""
    right, count = facts.get("probe_test_right") or 0, facts.get("probe_test_images") or 0
    test = (
        f", {percent(right / count, 2)} ({interval(intervals.wilson(right, count))}) of {count} test" if count else ""
    )
    kept = {
        "probe": "the probe, because no epoch is shown to be better by the validation images",
        "average": f"an average of weights, {percent(facts.get('epoch_share'), 0)} epoch {facts['epoch']} and the rest "
        "the probe",
    }.get(facts["keeps"], f"epoch {facts['epoch']}")
    if facts["keeps"] != "probe":
        kept += f", with {percent(facts['val_accuracy'], 2)} of the validation images"
    return (
        "Baseline, a linear probe on the features of the initial network, in fp32: "
        f"{percent(facts['probe_val_accuracy'], 2)} of the validation{test} images. Kept: {kept}."
    )


def weak_reference(card: ModelCard) -> str:
    """Return a warning when the novelty is a rank among few validation images; empty otherwise."""
    count = card.provenance.get("photographs", {}).get("val")
    if count is None or count >= intervals.FEW_IMAGES:
        return ""
    return (
        f"**The novelty reference is weak: {count} validation images. A novelty is a rank among them, and about one "
        f"ordinary image in {count + 1} is called stranger than all of them.**"
    )


def compare(
    first: np.ndarray, second: np.ndarray, targets: np.ndarray, temperature: float, groups: Sequence[str] = ()
) -> dict[str, Any]:
    """Return how the logits ``first`` (N, C) differ from ``second`` (N, C) on images with label indices (N,).

    Differences are first minus second. ``mcnemar_p`` is the exact two-sided probability of so uneven a split of the
    images that only one of the two got right, if both were equally accurate.
    """
    right_first, right_second = first.argmax(1) == targets, second.argmax(1) == targets
    only_first, only_second = int((right_first & ~right_second).sum()), int((right_second & ~right_first).sum())
    likelihood = log_losses(probabilities(first, temperature), targets) - log_losses(
        probabilities(second, temperature), targets
    )
    return {
        "agreement": metrics.rounded((first.argmax(1) == second.argmax(1)).mean()),
        "disagreements": int((first.argmax(1) != second.argmax(1)).sum()),
        "right_only_as_served": only_first,
        "right_only_in_fp32": only_second,
        "mcnemar_p": mcnemar(only_first, only_second),
        "top1_difference": metrics.rounded((only_first - only_second) / len(targets)),
        "top1_difference_interval": _rounded(intervals.paired(right_first, right_second, groups)),
        "negative_log_likelihood_difference": metrics.rounded(likelihood.mean()),
        "negative_log_likelihood_difference_interval": _rounded(intervals.mean_interval(likelihood)),
    }


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p of McNemar's test (1947) from the two counts of discordant pairs."""
    discordant = only_first + only_second
    return metrics.rounded(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0


def all_intervals(
    logits: np.ndarray, targets: np.ndarray, temperature: float, groups: Sequence[str] = ()
) -> dict[str, list[float]]:
    """Return the 95 % intervals of the metrics that have one, by their names in metrics.json.

    The mean loss has none of images in groups, nor of so few images that a large loss may not be among them yet.
    """
    probability = probabilities(logits, temperature)
    right, among_five = logits.argmax(1) == targets, metrics.among_best(logits, targets, 5)
    confidence = probability.max(1)
    effect = intervals.design_effect(right - confidence, groups)
    bounds = {
        "top1": intervals.share(right, groups),
        "top5": intervals.share(among_five, groups),
        "calibration_error_debiased": debiased_error(confidence, right, effect=effect)[1:],
    }
    if not groups and len(targets) >= intervals.FEW_IMAGES:
        bounds["negative_log_likelihood"] = intervals.mean_interval(log_losses(probability, targets))
    return {name: _rounded(pair) for name, pair in bounds.items()}


def _measure(logits: Any, data: EvaluationData) -> dict[str, Any]:
    temperature = data.card.temperature
    return metrics.summarise(logits, data.targets, temperature, data.groups) | {
        "intervals": all_intervals(logits, data.targets, temperature, data.groups)
    }


def _accuracy_lines(served: dict[str, Any], fp32: dict[str, Any], data: EvaluationData) -> list[str]:
    few = len(data.card.labels) <= 5  # of which the right one is always among five
    rows = [
        (words, *(_cell(figures, name, share) for figures in (served, fp32)))
        for name, words, share in _ACCURACY_ROWS
        if not (few and name == "top5")
    ]
    warning = intervals.few_images(len(data.targets))
    notes = [warning, weak_reference(data.card), baseline(data.card), _served_in(data.card)]
    return [
        *(line for note in notes if note for line in (note, "")),
        *table(["", "as served", "fp32"], rows),
        "",
        f"In brackets 95 % intervals: Wilson's score interval of {'top-1' if few else 'top-1 and top-5'}, the "
        f"bootstrap ({intervals.RESAMPLES:,} resamples of the images) of the negative log likelihood, test inversion "
        f"of the calibration error without its bias. {_in_groups(data.groups)}Chance only adds to a calibration "
        f"error, so the plain one is too high in few images. Macro F1 is the mean over the "
        f"{len(np.unique(data.targets))} labels that have images.",
    ]


def _in_groups(groups: Sequence[str]) -> str:
    if not groups:
        return ""
    return (
        f"The images come from {len(set(groups))} groups and those of one are alike: the intervals of this table, "
        "of the difference to fp32, of single labels and of corrupted images are those of other groups, all others of "
        "this report of other images of these. "
    )


def _served_in(card: ModelCard) -> str:
    reason = card.provenance.get("served_in")
    return f"Served in {reason}." if reason else ""


def _cell(figures: dict[str, Any], name: str, share: bool) -> str:
    value = _value(figures[name], share)
    if name not in figures["intervals"]:
        return value
    low, high = figures["intervals"][name]
    return f"{value} ({interval((low, high)) if share else f'{low:.3f}-{high:.3f}'})"


def _value(value: float, share: bool) -> str:
    return percent(value, 2) if share else f"{value:.4f}"


def _rounded(bounds: tuple[float, ...]) -> list[float]:
    return [metrics.rounded(bound) for bound in bounds]
