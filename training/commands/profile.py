"""The `--profile` of `python -m training fit`: measure the recipe instead of training it."""

from pathlib import Path

from jsonargparse import Namespace

from training import recipe as recipes


def run(args: Namespace) -> int:
    """Measure; print the tables."""
    from training import machine
    from training.fit import profile_report
    from training.fit.profiler import profile

    facts = machine.facts()  # first: the load before is not this program's
    recipe = recipes.resolve(args)
    folder = Path(args.run if args.run is not None else f"runs/{recipe.name}")
    found = profile(recipe, Path(args.cache) if args.cache else folder.parent / "cache", args.profile_steps)
    print(profile_report.write(found, facts, recipe, folder))
    return 0
