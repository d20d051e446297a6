"""The options of `python -m training quantize`."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--bundle", type=Path, required=True, help="the folder that holds card.json and weights.safetensors"
    )
    parser.add_argument("--images", type=Path, required=True, help="folder of training photographs, searched in depth")
    parser.add_argument("--output", type=Path, required=True, help="the ONNX file to write")
    parser.add_argument(
        "--full-range", action="store_true", help="8-bit weights: only right on processors with VNNI or AMX"
    )
