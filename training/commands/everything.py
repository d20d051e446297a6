"""`python -m training all`: fit, then bundle. What `make train` does."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from training import processes
from training.commands import bundle as bundling
from training.commands import fit as fitting


def parser() -> ArgumentParser:
    """Return the parser of fit."""
    return fitting.parser()


def add_arguments(options: ArgumentParser) -> None:
    """Declare the options of fit and of bundle."""
    fitting.add_training_arguments(options)
    options.add_argument("--output", help="folder of the bundle; default: model_store/ and the run's name")


def run(args: Namespace) -> int:
    """Train and bundle; print the headline."""
    _, place = fitting.train(args)
    if processes.first() and not args.fast_dev_run:
        wanted = Path(args.output) if args.output else None
        bundling.report(bundling.make(place, bundling.output(place.folder, wanted)))
    return 0
