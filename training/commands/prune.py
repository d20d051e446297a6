"""`python -m training prune`: a bundle's network with fewer channels, to be fine-tuned by `fit --init`."""

import argparse
from pathlib import Path

from training import golden, operations
from training.prune import MULTIPLE, prune_bundle
from visionserve.card import FILE_NAME as CARD
from visionserve.card import ModelCard


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--bundle", type=Path, required=True, help="the folder that holds card.json, manifest.csv, weights.safetensors"
    )
    parser.add_argument("--data.root", dest="root", type=Path, required=True, help="folder of its photographs")
    parser.add_argument("--ratio", type=float, required=True, help="share of the channels to take away, 0-1")
    parser.add_argument("--multiple", type=int, default=MULTIPLE, help="of channels kept (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="folder for the narrower network")


def run(args: argparse.Namespace) -> int:
    """Prune; print what is left."""
    pruned = prune_bundle(args.bundle, args.root, args.output, args.ratio, args.multiple)
    size = ModelCard.load(args.bundle / CARD).input.size
    before, after = (operations.count(network, size) for network in (golden.eager(args.bundle), pruned))
    print(f"{args.output}: {after / 1e9:.2f} x 10^9 multiplications per photograph, {after / before:.0%} of before")
    print(f"fine-tune it: python -m training fit --init {args.output} --teacher.bundle {args.bundle}")
    return 0
