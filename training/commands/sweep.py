"""`python -m training sweep`: a search for the recipe that validates best; goes on where it was stopped."""

import logging
import sys
from pathlib import Path

from jsonargparse import Namespace

from training import recipe as recipes
from training.fit import search_space, sweep_report
from training.fit.graceful_stop import Stopped, attention
from training.fit.sweep import Sweep


def run(args: Namespace) -> int:
    """Search; print a line per trial, then the table."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # it greets every trial anew
    recipe = recipes.resolve(args)
    folder = Path(args.run if args.run is not None else f"runs/{recipe.name}-sweep")
    cache = Path(args.cache) if args.cache else folder.parent / "cache"
    sweep = Sweep(recipe, search_space.load(Path(args.space), recipe), folder, cache)
    try:
        with attention() as listener:
            study = sweep.run(args.trials, 60 * args.timeout if args.timeout is not None else None, listener)
    except Stopped:
        print("\npython -m training sweep: stopped; the same command goes on, this trial first", file=sys.stderr)
        raise
    print(sweep_report.write(sweep, study))
    return 0
