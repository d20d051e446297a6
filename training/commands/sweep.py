"""`python -m training sweep`: a search for the recipe that validates best; goes on where it was stopped."""

import logging
import sys
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from training import recipe as recipes


def parser() -> ArgumentParser:
    """Return the parser of recipes: every entry that the space does not change is as they say."""
    return recipes.parser()


def add_arguments(options: ArgumentParser) -> None:
    """Declare what is not part of the recipe."""
    options.add_argument("--space", required=True, help="YAML of the entries to change, as in training/spaces/")
    options.add_argument(
        "--trials", type=int, default=20, help="trials in all, with those of earlier starts; default: 20"
    )
    options.add_argument("--timeout", type=float, help="minutes after which no further trial is begun; default: none")
    options.add_argument("--run", help="folder of the sweep; default: runs/NAME-sweep")
    options.add_argument("--cache", help="folder of decoded photographs; default: runs/cache")


def run(args: Namespace) -> int:
    """Search; print a line per trial, then the table."""
    from training import space, sweep_report
    from training.interruption import Stopped, attention
    from training.sweep import Sweep

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # it greets every trial anew
    recipe = recipes.resolve(args)
    folder = Path(args.run if args.run is not None else f"runs/{recipe.name}-sweep")
    cache = Path(args.cache) if args.cache else folder.parent / "cache"
    sweep = Sweep(recipe, space.load(Path(args.space), recipe), folder, cache)
    try:
        with attention() as listener:
            study = sweep.run(args.trials, 60 * args.timeout if args.timeout is not None else None, listener)
    except Stopped:
        print("\npython -m training sweep: stopped; the same command goes on, this trial first", file=sys.stderr)
        raise
    print(sweep_report.write(sweep, study))
    return 0
