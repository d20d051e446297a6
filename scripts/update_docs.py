"""Write measured numbers into the documents, from the files that hold them (`python -m scripts.update_docs`).

Blocks between `<!-- NAME -->` and `<!-- end -->` are generated here, never edited by hand. `--check` writes nothing and
exits with 1 if a document is out of date.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from visionserve import missing_package

with missing_package.explained("python -m scripts.update_docs", "train"):
    from training.evaluation.corruptions import KINDS, MILD, SEVERITIES

ROOT = Path(__file__).parents[1]
BUNDLE = ROOT / "model_store" / "flowers"
STUDY = ROOT / "docs" / "drift_study.json"
DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "docs" / "evaluation.md",
    ROOT / "docs" / "model_card.md",
    ROOT / "docs" / "monitoring.md",
)
_BLOCK = re.compile(r"(<!-- (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_WORST = 12


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check every document; return an exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.update_docs", description="Write measured numbers into documents."
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a document is out of date")
    args = parser.parse_args(arguments)
    stale = [path for path in DOCUMENTS if filled(path.read_text(encoding="utf-8")) != path.read_text(encoding="utf-8")]
    for path in stale:
        print(f"{path.relative_to(ROOT)} is out of date")
        if not args.check:
            path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
    return int(bool(stale) and args.check)


def filled(text: str) -> str:
    """Return a document with its blocks regenerated."""
    return _BLOCK.sub(lambda block: f"{block[1]}{BLOCKS[block['name']]()}\n{block[3]}", text)


def accuracy() -> str:
    """Return the evaluation table."""
    figures = _read(BUNDLE / "metrics.json")
    served, fp32 = figures["served"], figures["fp32"]
    rows = [
        (f"top-1, {served['photographs']} images (95 % interval)", _top1(served), _top1(fp32)),
        ("label among the best five", _percent(served["top5"]), _percent(fp32["top5"])),
        ("mean of the labels' accuracies", _percent(served["balanced_accuracy"]), _percent(fp32["balanced_accuracy"])),
        ("expected calibration error", _percent(served["calibration_error"]), _percent(fp32["calibration_error"])),
        ("the same without its bias (95 % interval)", _debiased(served), _debiased(fp32)),
        (
            "the same before temperature",
            _percent(served["calibration_error_before_temperature"]),
            _percent(fp32["calibration_error_before_temperature"]),
        ),
        (
            "negative log likelihood",
            f"{served['negative_log_likelihood']:.3f}",
            f"{fp32['negative_log_likelihood']:.3f}",
        ),
    ]
    head = ["| test split | int8, as served | fp32 |", "|---|---|---|"]
    return "\n".join([*head, *(f"| {name} | {one} | {other} |" for name, one, other in rows)])


def _debiased(figures: Mapping[str, Any]) -> str:
    low, high = figures["intervals"]["calibration_error_debiased"]
    return f"{_percent(figures['calibration_error_debiased'])} ({100 * low:.1f}-{100 * high:.1f})"


def readme_accuracy() -> str:
    """Return the accuracy of the shipped model in a sentence."""
    figures = _read(BUNDLE / "metrics.json")
    served = figures["served"]
    low, high = served["top1_interval"]
    return (
        f"Accuracy of the shipped model, int8 as served: top-1 {_percent(served['top1'])} (95 % interval "
        f"{100 * low:.1f}-{100 * high:.1f}; fp32 {100 * figures['fp32']['top1']:.1f}) on {served['photographs']} "
        f"held-out images of Oxford 102, calibration error {_percent(served['calibration_error'])}."
        + "".join(_elsewhere(row) for row in figures.get("external", {}).values())
    )


def _elsewhere(row: Mapping[str, Any]) -> str:
    low, high = row["top1_interval"]
    return (
        f" **On {row['photographs']} images of {row['groups']} websites that it was not trained on: "
        f"{_percent(row['top1'])}** ({100 * low:.1f}-{100 * high:.1f}; mean confidence "
        f"{_percent(row['mean_confidence'])}, "
        f"calibration error {_percent(row['calibration_error'])})."
    )


def corruptions() -> str:
    """Return the table of accuracies under the corruptions of the evaluation report, and their mean in a sentence."""
    figures = _read(BUNDLE / "metrics.json")["robustness"]
    severities, clean = figures["severities"], figures["clean"]
    middle = severities[len(severities) // 2]
    cells = {(cell["kind"], cell["severity"]): cell for cell in figures["cells"]}
    at_middle = [cell["accuracy"] for (_, severity), cell in cells.items() if severity == middle]
    low, high = figures["mean_accuracy_interval"]
    summary = (
        f"Mean accuracy over kinds and severities {_percent(figures['mean_accuracy'])} ({100 * low:.1f}-"
        f"{100 * high:.1f}), {_percent(figures['relative_accuracy'])} of the accuracy on the images as they are; at "
        f"severity {middle} alone {_percent(sum(at_middle) / len(at_middle))}."
    )
    named = " | ".join(f"severity {severity}" for severity in severities)
    head = f"| corruption | {named} | mean probability, {middle} | novelty above 0.95, {middle} |"
    empty = " |" * (len(severities) - 1)
    means = f"{_percent(clean['probability_mean'])} | {_percent(clean['novel'])}"
    whole = f"| as they are | {_interval(clean)} |{empty} {means} |"
    lines = [summary, "", head, "|---|" + "---:|" * (len(severities) + 2), whole]
    for kind in dict.fromkeys(kind for kind, _ in cells):
        accuracies = " | ".join(_interval(cells[kind, severity]) for severity in severities)
        one = cells[kind, middle]
        means = f"{_percent(one['probability_mean'])} | {_percent(one['novel'])}"
        lines.append(f"| {KINDS[kind].group}: {kind} | {accuracies} | {means} |")
    return "\n".join(lines)


def _interval(cell: Mapping[str, Any]) -> str:
    low, high = cell["interval"]
    return f"{_percent(cell['accuracy'])} ({100 * low:.1f}-{100 * high:.1f})"


def _table(section: str) -> str:
    """Return the first table of a section of the bundle's report."""
    text = (BUNDLE / "report.md").read_text(encoding="utf-8").partition(f"## {section}\n")[2]
    return "\n".join(re.findall(r"(?m)^\|.*$", text.partition("\n## ")[0]))


def worst_labels() -> str:
    """Return the table of the labels with the lowest accuracy."""
    rows = _read(BUNDLE / "metrics.json")["labels"]
    perfect = sum(row["accuracy"] == 1 for row in rows)
    counts = sorted(row["count"] for row in rows)
    missed = sorted((row for row in rows if row["accuracy"] < 1), key=lambda row: (row["accuracy"], row["label"]))
    lines = [f"| {row['label']} | {row['right']} of {row['count']} |" for row in missed[:_WORST]]
    summary = (
        f"All test photographs of {perfect} of the {len(rows)} labels were recognised. A label has {counts[0]} to "
        f"{counts[-1]} of them, median {counts[len(counts) // 2]}: too few to rank single labels."
    )
    return "\n".join([summary, "", "| the worst labels | recognised |", "|---|---|", *lines])


def details() -> str:
    """Return the table of the model card's facts."""
    card = _read(BUNDLE / "card.json")
    provenance, size = card["provenance"], (BUNDLE / card["model"]).stat().st_size / 1e6
    shown = card["input"]
    rows = [
        ("name, version", f"{card['name']} {card['version']}"),
        ("network", f"{card['architecture']}, {len(card['labels'])} labels, {size:.1f} MB in int8"),
        ("input", f"{shown['size']} x {shown['size']} pixels, RGB, the central {shown['crop']:g} of the shorter side"),
        ("date", provenance["date"]),
        ("initialised from", provenance["initialised_from"]),
        ("trained on", provenance["trained_on"]),
        ("photographs", _photographs(provenance)),
        *((f"images of {name}", _photographs(part)) for name, part in provenance.get("further", {}).items()),
        ("manifest", f"SHA-256 `{provenance['manifest_sha256'][:16]}...`: path and hash of each, `manifest.csv`"),
        ("temperature", f"{card['temperature']:g}"),
        ("licence", provenance["licence"]),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _photographs(counts: Mapping[str, Any]) -> str:
    groups = counts.get("groups", {})
    return ", ".join(
        f"{split} {count:,}" + (f" from {groups[split]} websites" if groups else "")
        for split, count in counts["photographs"].items()
    )


def external() -> str:
    """Return the table of the test split beside images of other origin."""
    figures = _read(BUNDLE / "metrics.json")
    served, sets = figures["served"], figures["external"]
    own = {
        "top1": served["top1"],
        "top1_interval": served["top1_interval"],
        "top5": served["top5"],
        "mean_confidence": _mean_confidence(served),
        "calibration_error": served["calibration_error"],
        "calibration_error_debiased": served["calibration_error_debiased"],
        "calibration_error_debiased_interval": served["intervals"]["calibration_error_debiased"],
    }
    columns = [own, *sets.values()]
    names = [f"{figures['served']['photographs']} test images of Oxford 102"]
    names += [f"{row['photographs']} images of {row['groups']} other websites" for row in sets.values()]
    rows = [
        ("top-1 (95 % interval)", [_top1(row) for row in columns]),
        ("label among the best five", [_percent(row["top5"]) for row in columns]),
        ("mean confidence", [_percent(row["mean_confidence"]) for row in columns]),
        ("expected calibration error", [_percent(row["calibration_error"]) for row in columns]),
        ("the same without its bias (95 % interval)", [_debiased_of(row) for row in columns]),
    ]
    head = [f"| int8, as served | {' | '.join(names)} |", "|---|" + "---|" * len(columns)]
    return "\n".join([*head, *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows)])


def _debiased_of(row: Mapping[str, Any]) -> str:
    low, high = row["calibration_error_debiased_interval"]
    return f"{_percent(row['calibration_error_debiased'])} ({100 * low:.1f}-{100 * high:.1f})"


def _mean_confidence(served: Mapping[str, Any]) -> float:
    rows = served["reliability"]
    return float(sum(count * confidence for count, confidence, _ in rows) / sum(count for count, _, _ in rows))


def robustness() -> str:
    """Return the accuracy table on corrupted test images, with the strength of each severity."""
    rows = {row["change"]: row for row in _read(STUDY)["rows"]}
    head = ["| top-1 at severity | 1 | 2 | 3 | 4 | 5 |", "|---|---:|---:|---:|---:|---:|"]
    lines = []
    for kind in MILD:
        strengths = ", ".join(_strength(kind, severity) for severity in SEVERITIES)
        accuracies = " | ".join(_percent(rows[f"{kind} {severity}"]["top1"]) for severity in SEVERITIES)
        lines.append(f"| {_CHANGES[kind].format(strengths)} | {accuracies} |")
    return "\n".join([*head, *lines])


def drift_study() -> str:
    """Return the table of false-alarm rate and power; of a kind of change up to what every window shows."""
    study = _read(STUDY)
    sizes = list(study["rows"][0]["alarms"])
    head = f"| change | images | top-1 | {' | '.join(f'window {size}' for size in sizes)} | first by |"
    lines = [head, "|---|---:|---:|" + "---:|" * len(sizes) + "---|"]
    complete: set[str] = set()
    for row in study["rows"]:
        kind, _, severity = row["change"].partition(" ")
        change = row["change"]
        if kind in MILD and severity.isdigit():
            if kind in complete:
                continue
            change = _CHANGES[kind].format(_strength(kind, int(severity)))
            complete |= {kind} if min(row["alarms"].values()) == 1 else set()
        top1 = "" if row["top1"] is None else _percent(row["top1"])
        alarms = " | ".join(_percent(row["alarms"][size]) for size in sizes)
        first = next((row["through"][size] for size in sizes if row["alarms"][size] > 0.05), "")
        lines.append(f"| {change} | {row['images']} | {top1} | {alarms} | {first.replace('_', ' ')} |")
    return "\n".join([*lines, "", f"{study['windows']} windows for each cell; {study['when']}, {study['machine']}."])


def _strength(kind: str, severity: int) -> str:
    strength = MILD[kind].strengths[severity - 1][0]
    return f"{strength * (255 if kind == 'noise' else 1):g}"


def _top1(figures: Mapping[str, Any]) -> str:
    low, high = figures["top1_interval"]
    return f"{100 * figures['top1']:.2f} % ({100 * low:.1f}-{100 * high:.1f})"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


# What a change of the drift study is called; the strengths are those of `MILD`.
_CHANGES = {
    "noise": "sensor noise, standard deviation {} of 255",
    "blur": "blur, standard deviation {} pixels of 224",
    "brightness": "light x {}",
    "contrast": "contrast x {}",
    "jpeg": "saved again as JPEG, quality {}",
}
BLOCKS: Mapping[str, Callable[[], str]] = {
    "accuracy": accuracy,
    "readme-accuracy": readme_accuracy,
    "corruptions": corruptions,
    "worst-labels": worst_labels,
    "details": details,
    "robustness": robustness,
    "drift-study": drift_study,
    "external": external,
    "shifted": lambda: _table("Other images of the same labels"),
    "novelty": lambda: _table("Novelty"),
}

if __name__ == "__main__":
    sys.exit(main())
