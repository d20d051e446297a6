"""What serving costs: the network as it is served beside the fp32 network that it was made from."""

from training.evaluation.evaluate import Evidence
from training.evaluation.paired import compare
from training.evaluation.report.sections import Section
from training.markdown import percent, table


def section(evidence: Evidence) -> Section:
    """Return agreement, McNemar's test and paired differences; metrics.json has them as ``comparison``."""
    found = compare(evidence.served.logits, evidence.exact, evidence.targets, evidence.card.temperature)
    top1, likelihood = (found[f"{name}_difference_interval"] for name in ("top1", "negative_log_likelihood"))
    rows = [
        ("the same answer", f"{percent(found['agreement'], 2)}, all but {found['disagreements']}"),
        ("right only as served", found["right_only_as_served"]),
        ("right only in fp32", found["right_only_in_fp32"]),
        ("McNemar's exact p", f"{found['mcnemar_p']:.3g}"),
        (
            "top-1, as served minus fp32, in points (95 % interval)",
            f"{100 * found['top1_difference']:+.2f} ({100 * top1[0]:+.2f} to {100 * top1[1]:+.2f})",
        ),
        (
            "negative log likelihood, as served minus fp32 (95 % interval)",
            f"{found['negative_log_likelihood_difference']:+.4f} ({likelihood[0]:+.4f} to {likelihood[1]:+.4f})",
        ),
    ]
    lines = [
        f"As served: `{evidence.card.model}` by {evidence.classifier.engine.name}. In fp32: the network with the "
        "bundle's weights, by PyTorch. The same photographs, the same temperature; intervals by a paired bootstrap.",
        "",
        *table(["on the same photographs", ""], rows),
    ]
    figures = {"agreement": found["agreement"], "comparison": found}
    return Section("As served beside fp32", lines, figures)
