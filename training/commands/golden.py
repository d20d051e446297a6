"""`python -m training golden`: a bundle's answers to the drawn images, after its weights were changed on purpose."""

import argparse
from pathlib import Path

from training import golden


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--bundle", type=Path, required=True, help="the folder that holds card.json and weights.safetensors"
    )


def run(args: argparse.Namespace) -> int:
    """Write golden.json."""
    golden.write(args.bundle)
    print(args.bundle / golden.FILE_NAME)
    return 0
