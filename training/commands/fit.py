"""`python -m training fit`: options are the entries of the recipe; the run's folder resumes by itself."""

import logging
import sys
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from training import distributed
from training import recipe as recipes
from training.commands import profile
from training.fit.graceful_stop import Stopped, attention
from training.fit.trainer import LAST, Run, fit


def run(args: Namespace) -> int:
    """Train; print the best validation accuracy."""
    if args.profile:
        return profile.run(args)
    accuracy, place = train(args)
    if distributed.first():
        print(f"{place.folder}: validation accuracy {100 * accuracy:.2f} %")
    return 0


def train(args: Namespace) -> tuple[float, Run]:
    """Train what the options say; return the validation accuracy (0-1) and the run.

    Several processes all return; the `processes.first` of them has written the run.

    Raises:
        Stopped: by Ctrl-C or SIGTERM; the last line on stderr says how to go on.
    """
    logging.basicConfig(level=logging.INFO if distributed.first() else logging.ERROR, format="%(message)s")
    recipe = distributed.adopt(recipes.resolve(args))
    place = Run(Path(args.run if args.run is not None else f"runs/{recipe.name}"))
    settings: dict[str, Any] = {"resume": args.resume, "fast": args.fast_dev_run}
    try:
        with attention() as listener:
            cache = Path(args.cache) if args.cache else None
            return fit(recipe, place, cache=cache, callbacks=[listener], **settings), place
    except Stopped:
        if distributed.first():
            print(f"\npython -m training fit: stopped; {_going_on(place)}", file=sys.stderr)
        raise


def _going_on(run: Run) -> str:
    if not (run.checkpoints / LAST).is_file():
        return "no epoch was finished, so the same command begins again"
    return f"with --resume auto the same command goes on after the last finished epoch ({run.checkpoints / LAST})"
