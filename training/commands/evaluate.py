"""`python -m training evaluate`: a bundle on its own test photographs, as served and in fp32."""

import argparse
from pathlib import Path

from training import evaluate as evaluation
from training import manifest as manifests
from training import plots
from training.sources import SPLITS
from visionserve.card import FILE_NAME as CARD
from visionserve.card import ModelCard


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--bundle", type=Path, required=True, help="the folder that holds card.json and manifest.csv")
    parser.add_argument(
        "--data.root", dest="root", type=Path, required=True, help="folder of the manifest's photographs"
    )
    parser.add_argument("--split", choices=SPLITS, default="test", help="default: %(default)s")
    parser.add_argument("--outside", type=Path, help="folder of photographs of other things: measures novelty")
    parser.add_argument("--output", type=Path, help="folder for metrics.json and plots; default: print only")
    parser.add_argument("--changed", action="store_true", help="accept photographs whose bytes are not the manifest's")


def run(args: argparse.Namespace) -> int:
    """Evaluate; print the figures, one a line."""
    card = ModelCard.load(args.bundle / CARD)
    manifest = manifests.load(args.bundle / manifests.FILE_NAME, args.root, card.labels)
    if not args.changed:
        manifest.verify()
    result = evaluation.evaluate(args.bundle, manifest, args.split, args.outside)
    for part in ("served", "fp32", "outside"):
        for name, value in result.figures.get(part, {}).items():
            print(f"{part:<8} {name:<45} {value}")
    if args.output is not None:
        args.output.mkdir(parents=True, exist_ok=True)
        evaluation.save(result.figures, args.output / evaluation.FILE_NAME)
        plots.draw(args.output / "plots", result.logits, result.targets, card.labels, card.temperature)
    return 0
