"""What the three commands of `python -m monitoring.drift` do."""

import argparse
import json
import sys
from datetime import date
from pathlib import Path

import numpy as np

from monitoring import textfile
from monitoring.drift import reference as references
from monitoring.drift import sample as samples
from monitoring.drift import study as studies
from monitoring.drift.check import MIN_WINDOW, Finding
from monitoring.drift.check import check as judge
from monitoring.drift.reference import Reference
from monitoring.drift.sample import Sample
from monitoring.online import prediction_log
from visionserve.errors import BundleError

DRIFTED = 4
_MIXED = (0.05, 0.1, 0.3)  # shares of other photographs among usual ones that the study tries


def check(options: argparse.Namespace) -> int:
    """Judge each window, oldest first; the last, shorter one too when it is long enough to say anything."""
    if options.window < MIN_WINDOW:
        raise BundleError(f"a window needs {MIN_WINDOW} photographs or more to say anything, not {options.window}")
    found = references.load(options.bundle)
    seen = _logged(options.log, found) if options.log is not None else _seen(options.bundle, options.images)
    starts = [start for start in range(0, len(seen), options.window) if len(seen) - start >= MIN_WINDOW]
    if not starts:
        raise BundleError(f"{len(seen)} usable photographs are too few to judge; {MIN_WINDOW} are the least")
    chosen = starts[-options.last :] if options.last else starts
    windows = [seen.take(slice(start, start + options.window)) for start in chosen]
    verdicts = [judge(found, window, options.alpha) for window in windows]
    for start, window, findings in zip(chosen, windows, verdicts, strict=True):
        _print(start, window, findings)
    if options.textfile is not None:
        textfile.write(options.textfile, _metrics(found, windows[-1], verdicts[-1]))
    return DRIFTED if any(finding.alarm for finding in verdicts[-1]) else 0


def reference(options: argparse.Namespace) -> int:
    """Build and write the reference."""
    found = references.build(options.bundle, options.data)
    path = references.save(found, options.bundle)
    print(f"{path}: {len(found)} validation photographs, {path.stat().st_size / 1000:.0f} kB")
    for name in found.known():
        low, middle, high = np.quantile(found.features[name], [0.05, 0.5, 0.95])
        print(f"  {name:<11} 5 % {low:8.3f}   median {middle:8.3f}   95 % {high:8.3f}")
    return 0


def study(options: argparse.Namespace) -> int:
    """Print the table of detection against false alarms."""
    found = references.load(options.bundle)
    classifier = samples.load_classifier(options.bundle)
    held_out, targets = references.sample_split(classifier, options.bundle, options.data, "test")
    files = references.files(options.bundle, options.data, "test")
    work = studies.Study(found, options.windows)
    rows = [work.quiet(held_out), work.row("held-out", held_out, top1=_top1(held_out, targets))]
    for folder in options.other:
        other, unusable = samples.of_files(classifier, studies.photographs_below(folder))
        if unusable:
            print(f"{len(unusable)} of {folder} could not be used", file=sys.stderr)
        rows += [
            work.row(f"{folder.name}, {100 * share:.0f} % among held-out", other, held_out, share) for share in _MIXED
        ]
        rows.append(work.row(folder.name, other))
    if not options.no_corruptions:
        for kind, severity, changed in studies.corrupted(classifier, files):
            rows.append(work.row(f"{kind} {severity}", changed, top1=_top1(changed, targets)))
            print(f"{rows[-1].kind}: {rows[-1].alarms}", file=sys.stderr)
    print(studies.table(rows))
    if options.output is not None:
        facts = {"windows": options.windows, "when": date.today().isoformat(), "machine": options.machine}
        text = json.dumps(facts | {"rows": studies.facts(rows)}, indent=1)
        options.output.write_text(text + "\n", encoding="utf-8")
    return 0


def _logged(log: Path, found: Reference) -> Sample:
    """Return the answered photographs of a log that the reference's model answered."""
    index = {label: place for place, label in enumerate(found.labels)}
    entries = [
        entry
        for entry in prediction_log.read(log).photographs
        if entry.ok and (entry.model, entry.version) == (found.name, found.version) and entry.prediction in index
    ]
    if not entries:
        raise BundleError(f"{log} has no answer of {found.name} {found.version}")
    return samples.of_rows(
        (
            {"novelty": entry.novelty, "confidence": entry.probability, **(entry.properties or {})},
            index[entry.prediction],
        )
        for entry in entries
        if entry.prediction is not None
    )


def _seen(bundle: Path, folder: Path) -> Sample:
    files = studies.photographs_below(folder)
    found, unusable = samples.of_files(samples.load_classifier(bundle), files)
    for file, reason in unusable:
        print(f"left out {file}: {reason}", file=sys.stderr)
    return found


def _top1(found: Sample, targets: np.ndarray) -> float:
    return float((found.label == targets).mean())


def _print(start: int, window: Sample, findings: list[Finding]) -> None:
    loud = [finding.feature.replace("_", " ") for finding in findings if finding.alarm]
    print(f"photographs {start + 1}-{start + len(window)}: {'DRIFT in ' + ', '.join(loud) if loud else 'quiet'}")
    for finding in findings:
        mark = "!" if finding.alarm else " "
        print(
            f"  {mark} {finding.feature:<11} usual {finding.usual:8.3f}  now {finding.now:8.3f}  "
            f"distance {finding.statistic:6.3f}  p {finding.p_value:.2g}"
        )


def _metrics(found: Reference, window: Sample, findings: list[Finding]) -> list[textfile.Metric]:
    names = {"model": found.name, "version": found.version}
    by_feature = [({"feature": finding.feature} | names, finding) for finding in findings]
    return [
        textfile.Metric(
            "visionserve_drift_distance",
            "Distance from the reference: Kolmogorov-Smirnov gap; of strangers their share; of label_mix the PSI.",
            [(labels, finding.statistic) for labels, finding in by_feature],
        ),
        textfile.Metric(
            "visionserve_drift_p_value",
            "Chance of such a distance when nothing has changed.",
            [(labels, finding.p_value) for labels, finding in by_feature],
        ),
        textfile.Metric(
            "visionserve_drift_alarm",
            "1 where the newest window has drifted.",
            [(labels, float(finding.alarm)) for labels, finding in by_feature],
        ),
        textfile.Metric("visionserve_drift_window", "Photographs in the newest window.", [(names, len(window))]),
    ]
