"""`python -m training resize`: a bundle of the same weights for another input, calibrated and proven anew."""

import argparse
import logging
from pathlib import Path

from training import bundle
from training.commands.bundle import report
from training.commands.compare import picture
from visionserve.card import FILE_NAME as CARD
from visionserve.card import ModelCard
from visionserve.errors import BundleError
from visionserve.transforms import Preprocessing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--bundle", type=Path, required=True, help="the bundle whose weights are taken")
    parser.add_argument("--data.root", dest="root", type=Path, required=True, help="folder of its photographs")
    parser.add_argument("--input", type=picture, required=True, metavar="SIZE/CROP", help="such as 176/0.875")
    parser.add_argument("--version", required=True, help="of the new bundle, such as 1.1: other answers, other version")
    parser.add_argument("--output", type=Path, required=True, help="folder of the new bundle; --bundle replaces it")


def run(args: argparse.Namespace) -> int:
    """Make the bundle; print its headline."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if args.version == ModelCard.load(args.bundle / CARD).version:
        raise BundleError(f"{args.bundle} is version {args.version} already: its answers change, so give another one")
    report(bundle.resize(args.bundle, args.root, Preprocessing(*args.input), args.version, args.output))
    return 0
