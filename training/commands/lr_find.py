"""`python -m training lr-find`: which learning rate a recipe can take; trains nothing that is kept."""

from pathlib import Path

from jsonargparse import Namespace

from training import recipe as recipes
from training.fit import lr_finder_report as report
from training.fit.lr_finder import range_test
from visionserve.errors import BundleError


def run(args: Namespace) -> int:
    """Test; print the table and the entry for the recipe."""
    recipe = recipes.resolve(args)
    cache = Path(args.cache) if args.cache else Path("runs/cache")
    test = range_test(recipe, cache, args.lowest, args.highest, args.steps)
    report.draw(test, recipe.optimizer.learning_rate, Path(args.output))
    print(report.table(test))
    print(f"{'the loss ran away' if test.diverged else 'no runaway'} at {test.rates[-1]:.2g}; plot: {args.output}")
    if test.suggested is None:
        raise BundleError("the loss falls at none of the rates: begin with a lower --lowest, or look at the recipe")
    print(f"to begin with: --optimizer.learning_rate {test.rates[test.suggested]:.2g}")
    return 0
