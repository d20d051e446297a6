"""The options of `python -m training prune`."""

import argparse
from pathlib import Path

MULTIPLE = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--bundle", type=Path, required=True, help="the folder that holds card.json, manifest.csv, weights.safetensors"
    )
    parser.add_argument("--data.root", dest="root", type=Path, required=True, help="folder of its photographs")
    parser.add_argument("--ratio", type=float, required=True, help="share of the channels to take away, 0-1")
    parser.add_argument("--multiple", type=int, default=MULTIPLE, help="of channels kept (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="folder for the narrower network")
