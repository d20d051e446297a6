"""The options of `python -m training all`."""

from jsonargparse import ArgumentParser

from training.options import fit as fitting


def parser() -> ArgumentParser:
    """Return the parser of fit."""
    return fitting.parser()


def add_arguments(options: ArgumentParser) -> None:
    """Declare the options of fit and of bundle."""
    fitting.add_training_arguments(options)
    options.add_argument("--output", help="folder of the bundle; default: model_store/ and the run's name")
