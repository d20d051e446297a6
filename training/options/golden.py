"""The options of `python -m training golden`."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--bundle", type=Path, required=True, help="the folder that holds card.json and weights.safetensors"
    )
