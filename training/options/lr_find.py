"""The options of `python -m training lr-find`."""

from jsonargparse import ArgumentParser

from training import recipe as recipes


def parser() -> ArgumentParser:
    """Return the parser of recipes."""
    return recipes.parser()


def add_arguments(options: ArgumentParser) -> None:
    """Declare what is not part of the recipe."""
    options.add_argument("--lowest", type=float, default=1e-4, help="first learning rate; default: 0.0001")
    options.add_argument("--highest", type=float, default=3.0, help="last learning rate; default: 3")
    options.add_argument("--steps", type=int, default=120, help="steps between the two; default: 120")
    options.add_argument("--output", default="lr.png", help="the plot; default: lr.png")
    options.add_argument("--cache", help="folder of decoded photographs; default: runs/cache")
