"""`visionserve explain`: the photograph under its heatmap, as a PNG."""

import argparse
import sys
from pathlib import Path

from visionserve.cli import exit_codes, image_files, options
from visionserve.cli.predict import read, table
from visionserve.cli.predictors import stop_unless_about_photograph, write
from visionserve.client import ResponseError


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("source", type=Path, metavar="PHOTO|-", help="a photograph, or standard input")
    parser.add_argument("--out", type=Path, required=True, metavar="PNG", help="where the overlay goes")
    options.add_answerer(parser)


def run(chosen: argparse.Namespace) -> int:
    """Write the overlay, print the answer that it explains, and return the exit code."""
    if str(chosen.source) != "-":
        image_files.check(chosen.source)
    image = read(chosen.source)
    with options.asker(chosen, top_k=1) as asker:
        try:
            answer, png = asker.predict(image), asker.overlay(image)
        except ResponseError as error:
            stop_unless_about_photograph(error)
            print(f"{chosen.source}: {error}", file=sys.stderr)
            return exit_codes.REFUSED
    write(chosen.out, png)
    print(table(str(chosen.source), answer))
    print(f"  {chosen.out}: red is where the photograph speaks for it")
    return exit_codes.OK
