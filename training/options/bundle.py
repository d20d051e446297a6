"""The options of `python -m training bundle`."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--run", type=Path, default=Path("runs/flowers"), help="folder of the run (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, help="folder of the bundle; default: model_store/ and the run's name")
