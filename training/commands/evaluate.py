"""`python -m training evaluate`: a bundle on its own test photographs, as served and in fp32, as a report."""

import argparse
import shutil
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from training.data import manifest as manifests
from training.evaluation import evaluate as evaluation
from training.evaluation.evaluate import Evidence
from training.evaluation.report import distribution_shift, novelty, robustness
from training.evaluation.report import write as report
from training.evaluation.report.robustness import DEFAULT
from training.evaluation.report.sections import Section
from visionserve.errors import BundleError
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import ModelCard


def run(args: argparse.Namespace) -> int:
    """Evaluate; print the figures, one a line."""
    if args.update and args.split != "test":
        raise BundleError(f"a bundle's own figures are those of its test split: leave out --split {args.split}")
    if len(dict(args.outside)) < len(args.outside):
        raise BundleError("two folders of --outside have the same name: write --outside NAME=DIR")
    if args.names is not None and args.shifted is None:
        raise BundleError("--names says what the folders of --shifted DIR show: give both")
    card = ModelCard.load(args.bundle / CARD)
    manifest = manifests.load(args.bundle / manifests.FILE_NAME, args.root, card.labels)
    if not args.changed:
        manifest.verify()
    evidence = evaluation.gather(args.bundle, manifest, args.split)
    found = [*report.sections(evidence), *_asked_for(args, evidence)]
    for name, value in _scalars(report.figures(evidence, found)):
        print(f"{name:<62} {value}")
    if args.output is not None:
        report.write(args.output, evidence, found)
    if args.update:
        shutil.rmtree(args.bundle / report.PLOTS, ignore_errors=True)  # those of sections that were not asked for again
        report.write(args.bundle, evidence, found, photographs=False)
        replace(card, metrics=report.headline(evidence, found)).save(args.bundle / CARD)
    return 0


def _asked_for(args: argparse.Namespace, evidence: Evidence) -> Iterator[Section]:
    """Yield the sections that need photographs or time of their own."""
    if args.shifted is not None:
        yield distribution_shift.section(evidence, args.shifted, args.names)
    if args.outside:
        yield novelty.section(evidence, dict(args.outside))
    if args.corruptions is not None:
        yield robustness.section(evidence, sorted(set(args.corruptions)) or DEFAULT)


def _scalars(found: dict[str, Any], above: str = "") -> Iterator[tuple[str, object]]:
    """Yield single values and intervals with the names of what they are part of; tables stay in the files."""
    for name, value in found.items():
        if isinstance(value, dict):
            yield from _scalars(value, f"{above}{name} ")
        elif not isinstance(value, list) or (len(value) == 2 and isinstance(value[0], float)):
            yield f"{above}{name}", value
