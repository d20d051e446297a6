"""The options of `python -m training evaluate`."""

import argparse
from pathlib import Path

from training.data.datasets import SPLITS

SEVERITIES = (1, 2, 3, 4, 5)
USUAL = (1, 3, 5)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--bundle", type=Path, required=True, help="the folder that holds card.json and manifest.csv")
    parser.add_argument(
        "--data.root", dest="root", type=Path, required=True, help="folder of the manifest's photographs"
    )
    parser.add_argument("--split", choices=SPLITS, default="test", help="default: %(default)s")
    parser.add_argument(
        "--outside",
        type=_named,
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="photographs of other things, anywhere below a folder: measures novelty; may be repeated",
    )
    parser.add_argument(
        "--shifted", type=Path, metavar="DIR", help="class folders of photographs from elsewhere: measures accuracy"
    )
    parser.add_argument(
        "--names", type=Path, metavar="CSV", help="which label each folder of --shifted shows: lines of folder,label"
    )
    parser.add_argument(
        "--corruptions",
        type=int,
        nargs="*",
        choices=SEVERITIES,
        metavar="SEVERITY",
        help=f"measure accuracy on corrupted photographs; default severities: {' '.join(map(str, USUAL))}",
    )
    parser.add_argument("--output", type=Path, help="folder for report.md, metrics.json and plots; default: print only")
    parser.add_argument(
        "--update",
        action="store_true",
        help="write the report, without photographs, and the card's figures into the bundle itself",
    )
    parser.add_argument("--changed", action="store_true", help="accept photographs whose bytes are not the manifest's")


def _named(text: str) -> tuple[str, Path]:
    """Read NAME=DIR; a folder alone is named after itself."""
    name, given, folder = text.partition("=")
    return (name, Path(folder)) if given else (Path(text).name, Path(text))
