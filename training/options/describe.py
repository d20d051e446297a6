"""The options of `python -m training data describe`."""

import argparse
from pathlib import Path
from typing import get_args

from training.recipe import SourceName


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("source", choices=get_args(SourceName), help="layout of the folder")
    parser.add_argument("--root", type=Path, help="the folder; default: what the source publishes, downloaded")
    parser.add_argument("--output", type=Path, help="folder of the report; default: runs/describe/SOURCE")
    parser.add_argument("--seed", type=int, default=1, help="of the stratified division (default: %(default)s)")
    parser.add_argument("--manifest", type=Path, help="a manifest whose division is looked at too")
