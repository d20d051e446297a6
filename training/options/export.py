"""The options of `python -m training export`."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--bundle", type=Path, required=True, help="the folder that holds card.json and weights.safetensors"
    )
    parser.add_argument("--output", type=Path, required=True, help="the ONNX file to write")
    parser.add_argument("--half", action="store_true", help="compute in half precision, for GPUs")
