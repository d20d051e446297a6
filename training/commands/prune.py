"""`python -m training prune`: a bundle's network with fewer channels, to be fine-tuned by `fit --init`."""

import argparse

from training import golden
from training.evaluation import operations
from training.export.prune import prune_bundle
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import ModelCard


def run(args: argparse.Namespace) -> int:
    """Prune; print what is left."""
    pruned = prune_bundle(args.bundle, args.root, args.output, args.ratio, args.multiple)
    size = ModelCard.load(args.bundle / CARD).input.size
    before, after = (operations.count(network, size) for network in (golden.eager(args.bundle), pruned))
    print(f"{args.output}: {after / 1e9:.2f} x 10^9 multiplications per photograph, {after / before:.0%} of before")
    print(f"fine-tune it: python -m training fit --init {args.output} --teacher.bundle {args.bundle}")
    return 0
