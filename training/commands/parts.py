"""`python -m training parts`: on which parts of the birds a bundle's heatmaps peak, and whether on the birds at all."""

import argparse

from training.data import manifest as manifests
from training.evaluation import pointing_game, pointing_game_report
from visionserve.errors import BundleError
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import ModelCard


def run(args: argparse.Namespace) -> int:
    """Measure; print the pointing game's shares and the most frequent parts."""
    if not args.tolerance >= 0:
        raise BundleError(f"--tolerance is a number of pixels, 0 or more, not {args.tolerance:g}")
    card = ModelCard.load(args.bundle / CARD)
    manifest = manifests.load(args.bundle / manifests.FILE_NAME, args.root, card.labels)
    if not args.changed:
        manifest.verify()
    found = pointing_game.point(args.bundle, manifest, args.split, args.tolerance)
    figures = pointing_game.figures(found, args.split, args.tolerance)
    pointing_game_report.write(args.output, found, figures, args.root)
    for name, entry in figures["pointing"].items():
        print(f"{name:<22} {entry['share']}")
    print("nearest parts          " + ", ".join(f"{row['part']} {row['hits']}" for row in figures["parts"][:5]))
    print(args.output / "parts.md")
    return 0
