"""The options of `python -m training package`."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--bundle", type=Path, required=True, help="the folder that holds card.json and its files")
    parser.add_argument("--output", type=Path, help="the archive to write; default: the bundle's folder with .mar")
    parser.add_argument(
        "--profile", choices=["cpu", "gpu", "auto"], default="auto", help="auto (default): gpu where a GPU is usable"
    )
