"""The options of `python -m training parts`."""

import argparse
from pathlib import Path

from training.data.datasets import SPLITS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--bundle", type=Path, required=True, help="the folder that holds card.json and manifest.csv")
    parser.add_argument(
        "--data.root", dest="root", type=Path, required=True, help="the CUB-200-2011 folder of the manifest"
    )
    parser.add_argument("--split", choices=SPLITS, default="test", help="default: %(default)s")
    parser.add_argument(
        "--tolerance", type=float, default=0.0, help="pixels by which a peak may miss the box (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/parts"), help="folder (default: %(default)s)")
    parser.add_argument("--changed", action="store_true", help="accept photographs whose bytes are not the manifest's")
