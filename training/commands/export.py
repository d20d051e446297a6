"""`python -m training export`: a bundle's weights as an ONNX file in floats."""

import argparse
from pathlib import Path

from training import golden
from training.export import export
from visionserve.card import FILE_NAME as CARD
from visionserve.card import ModelCard


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--bundle", type=Path, required=True, help="the folder that holds card.json and weights.safetensors"
    )
    parser.add_argument("--output", type=Path, required=True, help="the ONNX file to write")
    parser.add_argument("--half", action="store_true", help="compute in half precision, for GPUs")


def run(args: argparse.Namespace) -> int:
    """Write the file."""
    export(golden.eager(args.bundle), ModelCard.load(args.bundle / CARD).input, args.output, half=args.half)
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.1f} MB")
    return 0
