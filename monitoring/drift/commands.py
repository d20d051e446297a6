"""The commands of `python -m monitoring drift`: check, reference and study."""

import argparse
import json
import sys
from datetime import date
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from monitoring.drift import reference as references
from monitoring.drift import sample as samples
from monitoring.drift import study as studies
from monitoring.drift.check import MIN_WINDOW, Finding, no_drift, untested
from monitoring.drift.check import check as check_window
from monitoring.drift.reference import Reference
from monitoring.drift.sample import Sample
from monitoring.online import prediction_log
from visionserve.errors import BundleError

DRIFTED = 4
_SEED = 1
_SHARES = (0.05, 0.1)  # of other images among held-out ones, that the study tries


def check(args: argparse.Namespace) -> int:
    """Test each full window, oldest first.

    A window that is not full yet is not tested: it would be tested again as it grows, and every look is another chance
    of a false alarm. The windows of a log stay the same when it grows, and with them their results.
    """
    if args.window < MIN_WINDOW:
        raise BundleError(f"a window of {args.window} images is too small for a test: use {MIN_WINDOW} or more")
    reference = references.load(args.bundle)
    sample = _logged(args.log, reference) if args.log is not None else _classified(args.bundle, args.images)
    starts = range(0, len(sample) - args.window + 1, args.window)
    if not starts:
        raise BundleError(
            f"{len(sample)} usable images do not fill a window of {args.window}: collect more, or use a smaller "
            f"--window ({MIN_WINDOW} or more)"
        )
    starts = starts[-args.last :] if args.last else starts
    windows = [sample.take(slice(start, start + args.window)) for start in starts]
    results = [check_window(reference, window, args.alpha) for window in windows]
    for start, window, findings in zip(starts, windows, results, strict=True):
        _print(start, window, findings)
    if rest := len(sample) % args.window:
        print(f"the last {rest} images do not fill a window of {args.window} yet and were not tested")
    if args.textfile is not None:
        write_textfile(args.textfile, reference, windows[-1], results[-1])
    return 0 if no_drift(results[-1]) else DRIFTED


def reference(args: argparse.Namespace) -> int:
    """Build and write the reference."""
    sample, stratified = references.build(args.bundle, args.data)
    path = references.save(sample, args.bundle, stratified=stratified)
    print(f"{path}: {len(sample)} validation images, {path.stat().st_size / 1000:.0f} kB")
    print(f"  label mix: {'that of the whole data set' if stratified else 'a random draw, less power for its changes'}")
    for name, values in sample.features.items():
        low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
        print(f"  {name:<11} 5 % {low:8.3f}   median {middle:8.3f}   95 % {high:8.3f}")
    return 0


def study(args: argparse.Namespace) -> int:
    """Print the table of false-alarm rates and power."""
    reference = references.load(args.bundle)
    classifier = samples.load_classifier(args.bundle)
    held_out, targets = references.sample_split(classifier, args.bundle, args.data, "test")
    files = references.files(args.bundle, args.data, "test")
    work = studies.Study(reference, held_out, targets, args.windows)
    rows = [work.nothing_changed(), work.unchanged(), *work.label_mixes()]
    for folder in args.other:
        other, unusable = samples.of_files(classifier, samples.some_images_below(folder))
        if unusable:
            print(f"{len(unusable)} files of {folder} could not be used", file=sys.stderr)
        rows += [work.mixed(f"{100 * share:.0f} % images of {folder.name}", other, share) for share in _SHARES]
        rows.append(work.changed(f"all images of {folder.name}", other))
    for name, change in [] if args.no_corruptions else studies.changes():
        rows.append(work.changed(name, studies.changed(classifier, files, change), targets))
        print(f"{name}: {rows[-1].alarms}", file=sys.stderr)
    print(studies.table(rows))
    if args.output is not None:
        facts = {"windows": args.windows, "when": date.today().isoformat(), "machine": args.machine}
        text = json.dumps(facts | {"rows": studies.facts(rows)}, indent=1)
        args.output.write_text(text + "\n", encoding="utf-8")
    return 0


def write_textfile(path: Path, reference: Reference, window: Sample, findings: list[Finding]) -> None:
    """Replace a Prometheus text file with the findings of a window."""
    registry = CollectorRegistry()
    model = {"model": reference.name, "version": reference.version}
    names = ["feature", *model]
    distance = Gauge(
        "visionserve_drift_distance",
        "Distance from the reference: Kolmogorov-Smirnov gap; of ood_share the share; of label_mix the PSI.",
        names,
        registry=registry,
    )
    p_value = Gauge("visionserve_drift_p_value", "p-value of the newest window.", names, registry=registry)
    alarm = Gauge("visionserve_drift_alarm", "1 where the newest window has drifted.", names, registry=registry)
    count = Gauge(
        "visionserve_drift_images", "Images with this feature in the newest window.", names, registry=registry
    )
    for finding in findings:
        labels = {"feature": finding.feature} | model
        distance.labels(**labels).set(finding.statistic)
        p_value.labels(**labels).set(finding.p_value)
        alarm.labels(**labels).set(finding.alarm)
        count.labels(**labels).set(finding.count)
    size = Gauge("visionserve_drift_window", "Images in the newest window.", list(model), registry=registry)
    size.labels(**model).set(len(window))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_to_textfile(str(path), registry)


def _logged(log: Path, reference: Reference) -> Sample:
    """Return the images of a log that the reference's model answered."""
    indices = {label: index for index, label in enumerate(reference.labels)}
    entries = [
        entry
        for entry in prediction_log.read(log).images
        if entry.ok and (entry.model, entry.version) == (reference.name, reference.version)
    ]
    rows = [
        ({"novelty": entry.novelty, "confidence": entry.probability, **(entry.properties or {})}, indices[prediction])
        for entry in entries
        if (prediction := entry.prediction) is not None and prediction in indices
    ]
    if not rows:
        raise BundleError(f"{log} has no answer of {reference.name} {reference.version}")
    return samples.of_rows(rows)


def _classified(bundle: Path, folder: Path) -> Sample:
    """Return the images of a folder in a seeded random order: names often follow the labels, and so would windows."""
    files = samples.some_images_below(folder)
    files = [files[index] for index in np.random.default_rng(_SEED).permutation(len(files))]
    sample, unusable = samples.of_files(samples.load_classifier(bundle), files)
    for file, reason in unusable:
        print(f"left out {file}: {reason}", file=sys.stderr)
    return sample


def _print(start: int, window: Sample, findings: list[Finding]) -> None:
    drifted = [finding.feature.replace("_", " ") for finding in findings if finding.alarm]
    print(f"images {start + 1}-{start + len(window)}: {'DRIFT in ' + ', '.join(drifted) if drifted else 'no drift'}")
    for finding in findings:
        mark = "!" if finding.alarm else " "
        print(
            f"  {mark} {finding.feature:<11} expected {finding.expected:8.3f}  observed {finding.observed:8.3f}  "
            f"distance {finding.statistic:6.3f}  p {finding.p_value:.2g}"
            + (f"  ({finding.count} of {len(window)} measured)" if finding.count < len(window) else "")
        )
    for name, count in untested(window).items():
        print(f"    {name:<11} not tested: measured for {count} of {len(window)} images")
