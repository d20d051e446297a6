"""The options of `python -m training data manifest`."""

from jsonargparse import ArgumentParser

from training import recipe as recipes


def parser() -> ArgumentParser:
    """Return the parser of recipes: only the entries of ``data`` matter here."""
    return recipes.parser()


def add_arguments(options: ArgumentParser) -> None:
    """Declare what is not part of the recipe."""
    options.add_argument("--output", help="write the manifest to this CSV file; a list of broken files goes beside it")
    options.add_argument(
        "--cache", default="runs/cache", help="folder that remembers which photographs decode (default: %(default)s)"
    )
