"""`python -m training lr-find`: which learning rate a recipe can take; trains nothing that is kept."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from training import recipe as recipes
from visionserve.errors import BundleError


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


def run(args: Namespace) -> int:
    """Test; print the table and the entry for the recipe."""
    from training import rangetest_report as report
    from training.rangetest import range_test

    recipe = recipes.resolve(args)
    cache = Path(args.cache) if args.cache else Path("runs/cache")
    test = range_test(recipe, cache, args.lowest, args.highest, args.steps)
    report.draw(test, recipe.optimiser.learning_rate, Path(args.output))
    print(report.table(test))
    print(f"{'the loss ran away' if test.diverged else 'no runaway'} at {test.rates[-1]:.2g}; plot: {args.output}")
    if test.suggested is None:
        raise BundleError("the loss falls at none of the rates: begin with a lower --lowest, or look at the recipe")
    print(f"to begin with: --optimiser.learning_rate {test.rates[test.suggested]:.2g}")
    return 0
