"""The options of `python -m training resize`."""

import argparse
from pathlib import Path

from training.options.compare import picture


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--bundle", type=Path, required=True, help="the bundle whose weights are taken")
    parser.add_argument("--data.root", dest="root", type=Path, required=True, help="folder of its photographs")
    parser.add_argument("--input", type=picture, required=True, metavar="SIZE/CROP", help="such as 176/0.875")
    parser.add_argument("--version", required=True, help="of the new bundle, such as 1.1: other answers, other version")
    parser.add_argument("--output", type=Path, required=True, help="folder of the new bundle; --bundle replaces it")
