"""`python -m training resize`: a bundle of the same weights for another input, calibrated and proven anew."""

import argparse
import logging

from training import bundle
from training.commands.bundle import report
from visionserve.errors import BundleError
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import ModelCard
from visionserve.transforms import Preprocessing


def run(args: argparse.Namespace) -> int:
    """Make the bundle; print its headline."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if args.version == ModelCard.load(args.bundle / CARD).version:
        raise BundleError(f"{args.bundle} is version {args.version} already: its answers change, so give another one")
    report(bundle.resize(args.bundle, args.root, Preprocessing(*args.input), args.version, args.output))
    return 0
