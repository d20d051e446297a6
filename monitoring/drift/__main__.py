"""`python -m monitoring.drift COMMAND`: check, reference, study. Exit status: 0 quiet, 1 unusable input, 4 drift."""

import argparse
import sys
from importlib import import_module
from pathlib import Path

from visionserve.errors import BundleError


def main(arguments: list[str]) -> int:
    """Run one command and return the exit status."""
    options = _parser().parse_args(arguments)
    commands = import_module("monitoring.drift.commands")  # here, for it takes seconds and --help should not
    try:
        return int(getattr(commands, options.run)(options))
    except (BundleError, OSError) as error:
        print(f"python -m monitoring.drift: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m monitoring.drift", description="Does what comes in still look like what was validated on?"
    )
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")
    _check(verbs.add_parser("check", help="judge the windows of a live log, or of a folder of photographs"))
    _reference(verbs.add_parser("reference", help="build a bundle's reference from its validation photographs"))
    _study(verbs.add_parser("study", help="measure detection and false alarms on real changes"))
    return parser


def _check(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run="check")
    _bundle(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--log", type=Path, help="a log that `python -m monitoring.online` wrote")
    source.add_argument("--images", type=Path, help="a folder of photographs, classified here, in the order of names")
    parser.add_argument("--window", type=int, default=200, help="photographs in a window (default: %(default)s)")
    parser.add_argument("--last", type=int, help="judge only so many windows, the newest")
    parser.add_argument(
        "--alpha", type=float, default=0.01, help="chance of a false alarm in a window (default: %(default)s)"
    )
    parser.add_argument("--textfile", type=Path, help="write the newest window as a Prometheus text file")


def _reference(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run="reference")
    _bundle(parser)
    parser.add_argument("--data", type=Path, required=True, help="folder of the manifest's photographs")


def _study(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run="study")
    _bundle(parser)
    parser.add_argument("--data", type=Path, required=True, help="folder of the manifest's photographs")
    parser.add_argument(
        "--other", type=Path, action="append", default=[], help="a folder of other photographs; may be repeated"
    )
    parser.add_argument("--windows", type=int, default=1000, help="windows drawn for each row (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="write the rows as JSON here too")
    parser.add_argument("--machine", default="", help="what this machine is, for the JSON file")
    parser.add_argument("--no-corruptions", action="store_true", help="leave out the slow part")


def _bundle(parser: argparse.ArgumentParser) -> None:
    default = Path("model_store/flowers")
    parser.add_argument("--bundle", type=Path, default=default, help="the model's bundle (default: %(default)s)")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
