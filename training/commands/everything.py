"""`python -m training all`: fit, then bundle. What `make train` does."""

from pathlib import Path

from jsonargparse import Namespace

from training import distributed
from training.commands import bundle as bundling
from training.commands import fit as fitting


def run(args: Namespace) -> int:
    """Train and bundle; print the headline."""
    _, place = fitting.train(args)
    if distributed.first() and not args.fast_dev_run:
        wanted = Path(args.output) if args.output else None
        bundling.report(bundling.make(place, bundling.output(place.folder, wanted)))
    return 0
