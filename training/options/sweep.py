"""The options of `python -m training sweep`."""

from jsonargparse import ArgumentParser

from training import recipe as recipes


def parser() -> ArgumentParser:
    """Return the parser of recipes: every entry that the space does not change is as they say."""
    return recipes.parser()


def add_arguments(options: ArgumentParser) -> None:
    """Declare what is not part of the recipe."""
    options.add_argument("--space", required=True, help="YAML of the entries to change, as in training/search_spaces/")
    options.add_argument(
        "--trials", type=int, default=20, help="trials in all, with those of earlier starts; default: 20"
    )
    options.add_argument("--timeout", type=float, help="minutes after which no further trial is begun; default: none")
    options.add_argument("--run", help="folder of the sweep; default: runs/NAME-sweep")
    options.add_argument("--cache", help="folder of decoded photographs; default: runs/cache")
