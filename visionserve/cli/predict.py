"""`visionserve predict`: an image as a readable table, a folder of any size as CSV, JSON Lines or Parquet."""

import argparse
import shutil
import sys
import textwrap
from pathlib import Path

from visionserve.cli import exit_codes, folder, image_files, options
from visionserve.cli.exit_codes import Stop
from visionserve.cli.image_files import printable
from visionserve.cli.output import put
from visionserve.cli.predictors import Predictor, stop_unless_about_image, write
from visionserve.client import Answer, ResponseError
from visionserve.client.client import CONNECTIONS

_BAR = 30
_BESIDE_BAR = 13  # characters of a row that are neither label nor bar
_COLUMNS = 100  # without a terminal


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "source",
        type=options.path,
        nargs="+",
        metavar="IMAGE|FOLDER|-",
        help="image files, one folder, or standard input",
    )
    options.add_predictor(parser)
    parser.add_argument("--top-k", type=options.count, metavar="K", help="labels per image (5, or all if fewer)")
    parser.add_argument(
        "--explain",
        type=options.path,
        metavar="OUT",
        help="also write the heatmap over the image: a PNG for an image, a folder for a folder",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help=".csv, .jsonl or .parquet, continued if it exists; - prints JSON Lines",
    )
    parser.add_argument(
        "--labels",
        choices=["folder"],
        help="report the accuracy too: each image's label is the name of the folder it is in",
    )
    parser.add_argument(
        "--concurrency",
        type=options.connections,
        default=8,
        metavar="N",
        help=f"requests at once, for a folder (8; at most {CONNECTIONS})",
    )
    parser.add_argument(
        "--workers", type=options.count, metavar="N", help="processes with --model, for a folder (as many as cores)"
    )


def run(args: argparse.Namespace) -> int:
    """Classify, and return the exit code."""
    sources: list[Path] = args.source
    for source in sources:
        image_files.check(source)
    if not any(source.is_dir() for source in sources):
        return _tables(sources, args)
    if len(sources) > 1:
        raise Stop("Name one folder, or image files: not both, nor two folders.")
    return folder.run(sources[0], args)


def _tables(sources: list[Path], args: argparse.Namespace) -> int:
    """Print a table per image."""
    for option in ("output", "labels"):
        if getattr(args, option) is not None:
            raise Stop(f"--{option} is for a folder; the answer about an image file is printed.")
    if args.explain is not None and len(sources) > 1:
        raise Stop("--explain writes the overlay of one image: name one.")
    if args.explain is not None:
        image_files.check_output(args.explain, sources)
    refused = 0
    with options.predictor(args, args.top_k) as predictor:
        for source in sources:
            refused += not _printed(source, predictor, args.explain)
    return exit_codes.REFUSED if refused else exit_codes.OK


def _printed(source: Path, predictor: Predictor, overlay: Path | None) -> bool:
    try:
        image = image_files.read(source)
        put(table(printable(source), predictor.predict(image)))
        if overlay is not None:
            write(overlay, predictor.overlay(image))
    except ResponseError as error:
        stop_unless_about_image(error)
        print(printable(f"{source}: {error}"), file=sys.stderr)
        return False
    return True


def table(title: str, answer: Answer) -> str:
    """Return an answer as lines: a label, its probability and a bar for each prediction, then the novelty."""
    columns = shutil.get_terminal_size((_COLUMNS, 24)).columns if sys.stdout.isatty() else _COLUMNS
    labels = [printable(entry.label) for entry in answer.predictions]
    width = max(map(len, labels))
    longest, block = max(0, min(_BAR, columns - width - _BESIDE_BAR)), _block(sys.stdout.encoding)
    rows = [
        f"  {label:<{width}}  {entry.probability:7.2%}  {block * round(entry.probability * longest)}".rstrip()
        for label, entry in zip(labels, answer.predictions, strict=True)
    ]
    novelty = f"  novelty {answer.novelty:.2f}  (0 very like the training images, 1 unlike all of them)"
    return "\n".join([title, *rows, *textwrap.wrap(novelty, columns, subsequent_indent="  ", drop_whitespace=True)])


def _block(encoding: str | None) -> str:
    """Return the character of a bar, one that the output can show."""
    try:
        "█".encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return "#"
    return "█"
