"""`visionserve explain`: write the image with its heatmap over it, as a PNG."""

import argparse
import sys

from visionserve.cli import exit_codes, image_files, options
from visionserve.cli.image_files import printable, read
from visionserve.cli.output import put
from visionserve.cli.predict import table
from visionserve.cli.predictors import stop_unless_about_image, write
from visionserve.client import ResponseError


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("source", type=options.path, metavar="IMAGE|-", help="an image file, or standard input")
    parser.add_argument("--out", type=options.path, required=True, metavar="PNG", help="the file to write")
    options.add_predictor(parser)


def run(args: argparse.Namespace) -> int:
    """Write the overlay, print the answer that it explains, and return the exit code."""
    image_files.check(args.source)
    image_files.check_output(args.out, [args.source])
    with options.predictor(args, top_k=1) as predictor:
        try:
            image = read(args.source)
            answer, png = predictor.predict(image), predictor.overlay(image)
        except ResponseError as error:
            stop_unless_about_image(error)
            print(printable(f"{args.source}: {error}"), file=sys.stderr)
            return exit_codes.REFUSED
    write(args.out, png)
    put(table(printable(args.source), answer))
    put(f"  {printable(args.out)}: red marks the parts that support the label")
    return exit_codes.OK
