"""How far the stated probabilities can be trusted, before and after temperature."""

from training.evaluation import metrics, plots
from training.evaluation.evaluate import Evidence
from training.evaluation.report.sections import Plot, Section
from training.markdown import percent, table

_ROWS = (
    ("calibration_error", "expected calibration error, 15 equal steps of probability", True),
    ("calibration_error_equal_mass", "the same, 15 bins of equally many photographs", True),
    ("negative_log_likelihood", "negative log likelihood, nats", False),
    ("brier", "Brier score, 0-2", False),
)


def section(evidence: Evidence) -> Section:
    """Return tables and the reliability diagram; the figures themselves belong to ``served`` and ``fp32``."""
    temperature = evidence.card.temperature
    found = metrics.summarise(evidence.served.logits, evidence.targets, temperature)
    rows = [
        (said, *(percent(found[n], 2) if share else f"{found[n]:.4f}" for n in (f"{name}_before_temperature", name)))
        for name, said, share in _ROWS
    ]
    lines = [
        f"One temperature, {temperature:g}, was fitted on validation photographs; it divides the logits and changes no "
        "answer, only how sure it sounds.",
        "",
        *table(["as served", "before temperature", "after"], rows),
    ]
    figure = plots.reliability_diagram(evidence.served.logits, evidence.targets, temperature)
    return Section("Calibration", lines, plots=[Plot("reliability", figure, "Stated probability against accuracy")])
