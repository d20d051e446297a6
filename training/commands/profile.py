"""The `--profile` of `python -m training fit`: measure the recipe instead of training it."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from training import recipe as recipes

STEPS = 20


def add_arguments(options: ArgumentParser) -> None:
    """Declare the options of a profile."""
    options.add_argument(
        "--profile",
        action="store_true",
        help="train nothing: measure loading and steps, write RUN/profile.md and .json",
    )
    options.add_argument(
        "--profile-steps", type=int, default=STEPS, help=f"steps per round and stage; default: {STEPS}"
    )


def run(args: Namespace) -> int:
    """Measure; print the tables."""
    from training import machine, profile_report
    from training.profiling import profile

    facts = machine.facts()  # first: the load before is not this program's
    recipe = recipes.resolve(args)
    folder = Path(args.run if args.run is not None else f"runs/{recipe.name}")
    found = profile(recipe, Path(args.cache) if args.cache else folder.parent / "cache", args.profile_steps)
    print(profile_report.write(found, facts, recipe, folder))
    return 0
