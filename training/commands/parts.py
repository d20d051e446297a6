"""`python -m training parts`: on which parts of the birds a bundle's heatmaps peak, and whether on the birds at all."""

import argparse

from training import manifest as manifests
from training import parts, parts_report
from visionserve.card import FILE_NAME as CARD
from visionserve.card import ModelCard
from visionserve.errors import BundleError


def run(args: argparse.Namespace) -> int:
    """Measure; print the pointing game's shares and the most frequent parts."""
    if not args.tolerance >= 0:
        raise BundleError(f"--tolerance is a number of pixels, 0 or more, not {args.tolerance:g}")
    card = ModelCard.load(args.bundle / CARD)
    manifest = manifests.load(args.bundle / manifests.FILE_NAME, args.root, card.labels)
    if not args.changed:
        manifest.verify()
    found = parts.point(args.bundle, manifest, args.split, args.tolerance)
    figures = parts.figures(found, args.split, args.tolerance)
    parts_report.write(args.output, found, figures, args.root)
    for name, entry in figures["pointing"].items():
        print(f"{name:<22} {entry['share']}")
    print("nearest parts          " + ", ".join(f"{row['part']} {row['hits']}" for row in figures["parts"][:5]))
    print(args.output / "parts.md")
    return 0
