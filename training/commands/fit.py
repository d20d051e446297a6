"""`python -m training fit`: options are the entries of the recipe; the run's folder resumes by itself."""

import logging
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from training import recipe as recipes
from training.fit import Run, fit


def parser() -> ArgumentParser:
    """Return a parser of recipes: command line > TRAIN_* environment variables > file."""
    return recipes.parser()


def add_arguments(options: ArgumentParser) -> None:
    """Declare what is not part of the recipe."""
    options.add_argument("--run", help="folder of the run; default: runs/NAME")
    options.add_argument(
        "--resume", default="auto", help="auto (default): from the run's last checkpoint if any; none; a path"
    )
    options.add_argument("--cache", help="folder of decoded photographs; default: runs/cache")
    options.add_argument("--fast-dev-run", action="store_true", help="one batch of everything, to see that it works")


def run(args: Namespace) -> int:
    """Train; print the best validation accuracy."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    accuracy, place = train(args)
    print(f"{place.folder}: validation accuracy {100 * accuracy:.2f} %")
    return 0


def train(args: Namespace) -> tuple[float, Run]:
    """Train what the options say; return the validation accuracy (0-1) and the run."""
    recipe = recipes.resolve(args)
    place = Run(Path(args.run if args.run is not None else f"runs/{recipe.name}"))
    settings: dict[str, Any] = {"resume": args.resume, "fast": args.fast_dev_run}
    return fit(recipe, place, cache=Path(args.cache) if args.cache else None, **settings), place
