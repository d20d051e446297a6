"""The options of `python -m training fit`."""

from jsonargparse import ArgumentParser

from training import recipe as recipes
from training.options import profile


def parser() -> ArgumentParser:
    """Return a parser of recipes: command line > TRAIN_* environment variables > file."""
    return recipes.parser()


def add_arguments(options: ArgumentParser) -> None:
    """Declare what is not part of the recipe."""
    add_training_arguments(options)
    profile.add_arguments(options)


def add_training_arguments(options: ArgumentParser) -> None:
    """Declare how the run itself goes."""
    options.add_argument("--run", help="folder of the run; default: runs/NAME")
    options.add_argument(
        "--resume",
        default="auto",
        help="auto (default): from the run's last checkpoint if any; unfinished: only if it was begun with the same "
        "recipe and has not ended; none; a path",
    )
    options.add_argument("--cache", help="folder of decoded photographs; default: runs/cache")
    options.add_argument("--fast-dev-run", action="store_true", help="one batch of everything, to see that it works")
