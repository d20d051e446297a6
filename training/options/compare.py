"""The options of `python -m training compare`."""

import argparse
from pathlib import Path

PRECISIONS = ("int8", "fp32", "fp16", "bf16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "bundles", type=Path, nargs="+", help="folders of bundles; the first is what others are held to"
    )
    parser.add_argument("--data.root", dest="root", type=Path, required=True, help="folder of their photographs")
    parser.add_argument(
        "--precisions", nargs="+", choices=PRECISIONS, default=["int8"], help="default: int8, as the bundles are served"
    )
    parser.add_argument(
        "--inputs",
        nargs="+",
        type=picture,
        default=[],
        metavar="SIZE/CROP",
        help="the first bundle also in fp32 at other inputs, such as 176/0.875: what fewer pixels alone cost",
    )
    parser.add_argument("--rounds", type=int, default=10, help="of the race; 0 leaves it out (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each network per round (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=4, help="pictures per call (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of the processor (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="folder for compare.md, compare.json, compare.png")


def picture(text: str) -> tuple[int, float]:
    """Return size and crop of SIZE/CROP; a ValueError is a usage error."""
    from visionserve.transforms import Preprocessing  # torch: seconds, for who gives an input only

    size, crop = text.split("/")
    made = Preprocessing(int(size), float(crop))
    return made.size, made.crop
