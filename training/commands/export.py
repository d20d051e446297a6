"""`python -m training export`: a bundle's weights as an ONNX file in floats."""

import argparse

from training import golden
from training.export.onnx import export
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import ModelCard


def run(args: argparse.Namespace) -> int:
    """Write the file."""
    export(golden.eager(args.bundle), ModelCard.load(args.bundle / CARD).input, args.output, half=args.half)
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.1f} MB")
    return 0
