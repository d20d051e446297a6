"""`python -m training fit`, `all`, `sweep` and `lr-find`: the options are the entries of a recipe."""

import logging
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.cli import Command
from visionserve.errors import BundleError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from training.fit.run import Run

PROFILE_STEPS = 20


def fit_options(parser: "ArgumentParser") -> None:
    """Declare what is not part of the recipe."""
    _run_options(parser)
    parser.add_argument(
        "--profile",
        action="store_true",
        help="train nothing: measure loading and steps, write RUN/profile.md and .json",
    )
    parser.add_argument(
        "--profile-steps", type=int, default=PROFILE_STEPS, help=f"steps per round and stage; default: {PROFILE_STEPS}"
    )


def fit(args: "Namespace") -> int:
    """Train; print the best validation accuracy."""
    if args.profile:
        return _profile(args)
    from training import distributed

    accuracy, run = train(args)
    if distributed.is_rank_zero():
        print(f"{run.folder}: validation accuracy {100 * accuracy:.2f} %")
    return 0


def train(args: "Namespace", command: str = "fit") -> "tuple[float, Run]":
    """Train what the options of ``command`` say; return the validation accuracy (0-1) and the run.

    Several processes all return; the `distributed.is_rank_zero` of them has written the run.

    Raises:
        Stopped: by Ctrl-C or SIGTERM; the last line on stderr says how to go on.
    """
    from training import distributed
    from training import recipe as recipes
    from training.fit import trainer
    from training.fit.graceful_stop import Stopped, stop_on_signals
    from training.fit.run import LAST, Run

    logging.basicConfig(level=logging.INFO if distributed.is_rank_zero() else logging.ERROR, format="%(message)s")
    recipe = distributed.from_launcher(recipes.resolve(args))
    run = Run(Path(args.run if args.run is not None else f"runs/{recipe.name}"))
    settings: dict[str, Any] = {"resume": args.resume, "fast": args.fast_dev_run}
    try:
        with stop_on_signals() as listener:
            cache = Path(args.cache) if args.cache else None
            return trainer.fit(recipe, run, cache=cache, callbacks=[listener], **settings), run
    except Stopped:
        if distributed.is_rank_zero():
            by_make = "MAKELEVEL" in os.environ  # which make sets for what it starts
            print("\n" + stopped(command, run.checkpoints / LAST, args.resume, by_make=by_make), file=sys.stderr)
        raise


def stopped(command: str, last: Path, resume: str, *, by_make: bool = False) -> str:
    """Return how to go on after a signal: ``last`` is the last checkpoint, ``resume`` what --resume was."""
    program = f"python -m training {command}"
    again = "the same command"
    if by_make and command == "all":  # `make pipeline` starts `fit`
        program, again = "make train", "the same `make train`"
    if not last.is_file():
        return f"{program}: stopped; no epoch was finished, so {again} begins again"
    option = "" if resume in ("auto", "unfinished") else " with --resume auto"
    return f"{program}: stopped; {again}{option} goes on after the last finished epoch ({last})"


def everything_options(parser: "ArgumentParser") -> None:
    """Declare the options of fit and of bundle."""
    _run_options(parser)
    parser.add_argument("--output", help="folder of the bundle; default: model_store/ and the run's name")


def everything(args: "Namespace") -> int:
    """Train and bundle; print the headline. What `make train` does."""
    from training import distributed
    from training.cli import export

    _, run = train(args, "all")
    if distributed.is_rank_zero() and not args.fast_dev_run:
        folder = export.bundle_folder(run.folder, Path(args.output) if args.output else None)
        export.print_headline(export.make_bundle(run, folder))
        print(next_step(folder))
    return 0


def next_step(bundle: Path) -> str:
    """Return where a bundle is and what makes a service of it; `make archive` takes those of model_store."""
    if bundle.parent == Path("model_store"):
        return f"{bundle}; next: make archive MODEL={shlex.quote(bundle.name)}"
    archive = shlex.quote(f"model_store/{bundle.name}.mar")
    return f"{bundle}; next: python -m training package --bundle {shlex.quote(str(bundle))} --output {archive}"


def sweep_options(parser: "ArgumentParser") -> None:
    """Declare what is not part of the recipe; every entry that the space does not change is as the recipe says."""
    parser.add_argument("--space", required=True, help="YAML of the entries to change, as in training/search_spaces/")
    parser.add_argument(
        "--trials", type=int, default=20, help="trials in all, with those of earlier starts; default: 20"
    )
    parser.add_argument("--timeout", type=float, help="minutes after which no further trial is begun; default: none")
    parser.add_argument("--run", help="folder of the sweep; default: runs/NAME-sweep")
    parser.add_argument("--cache", help="folder of decoded images; default: runs/cache")


def sweep(args: "Namespace") -> int:
    """Search; print a line per trial, then the table."""
    from training import recipe as recipes
    from training.fit import search_space, sweep_report
    from training.fit.graceful_stop import Stopped, stop_on_signals
    from training.fit.sweep import Sweep

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # it logs a greeting for every trial
    recipe = recipes.resolve(args)
    folder = Path(args.run if args.run is not None else f"runs/{recipe.name}-sweep")
    cache = Path(args.cache) if args.cache else folder.parent / "cache"
    search = Sweep(recipe, search_space.load(Path(args.space), recipe), folder, cache)
    try:
        with stop_on_signals() as listener:
            study = search.run(args.trials, 60 * args.timeout if args.timeout is not None else None, listener)
    except Stopped:
        print("\npython -m training sweep: stopped; the same command goes on, this trial first", file=sys.stderr)
        raise
    print(sweep_report.write(search, study))
    return 0


def lr_find_options(parser: "ArgumentParser") -> None:
    """Declare what is not part of the recipe."""
    parser.add_argument("--lowest", type=float, default=1e-4, help="first learning rate; default: 0.0001")
    parser.add_argument("--highest", type=float, default=3.0, help="last learning rate; default: 3")
    parser.add_argument("--steps", type=int, default=120, help="steps between the two; default: 120")
    parser.add_argument("--run", help="folder of the run; default: runs/NAME")
    parser.add_argument("--output", help="the plot; default: lr.png in the folder of the run")
    parser.add_argument("--cache", help="folder of decoded images; default: runs/cache")


def lr_find(args: "Namespace") -> int:
    """Test which learning rates the recipe can take; print the table and the entry for the recipe."""
    from training import recipe as recipes
    from training.fit import lr_finder

    recipe = recipes.resolve(args)
    cache = Path(args.cache) if args.cache else Path("runs/cache")
    test = lr_finder.range_test(recipe, cache, args.lowest, args.highest, args.steps)
    run = Path(args.run if args.run is not None else f"runs/{recipe.name}")
    plot = Path(args.output) if args.output else run / "lr.png"
    plot.parent.mkdir(parents=True, exist_ok=True)
    lr_finder.draw(test, recipe.optimizer.learning_rate, plot)
    print(lr_finder.table(test))
    print(f"{'the loss diverged' if test.diverged else 'no divergence'} at {test.rates[-1]:.2g}; plot: {plot}")
    if test.suggested is None:
        raise BundleError("the loss falls at none of the rates: begin with a lower --lowest, or look at the recipe")
    print(f"to begin with: --optimizer.learning_rate {test.rates[test.suggested]:.2g}")
    return 0


def _run_options(parser: "ArgumentParser") -> None:
    parser.add_argument("--run", help="folder of the run; default: runs/NAME")
    parser.add_argument(
        "--resume",
        default="auto",
        help="auto (default): from the run's last checkpoint if any; unfinished: only if it was begun with the same "
        "recipe and has not ended; none; a path",
    )
    parser.add_argument("--cache", help="folder of decoded images; default: runs/cache")
    parser.add_argument("--fast-dev-run", action="store_true", help="one batch of everything, to see that it works")


def _profile(args: "Namespace") -> int:
    """Measure the recipe instead of training it; print the tables."""
    from training import machine
    from training import recipe as recipes
    from training.fit import profile_report
    from training.fit.profiler import profile

    facts = machine.facts()  # first: the load before is not this program's
    recipe = recipes.resolve(args)
    folder = Path(args.run if args.run is not None else f"runs/{recipe.name}")
    measured = profile(recipe, Path(args.cache) if args.cache else folder.parent / "cache", args.profile_steps)
    print(profile_report.write(measured, facts, recipe, folder))
    return 0


COMMANDS = {
    "fit": Command("train a recipe; goes on where it was stopped", fit_options, fit, takes_recipe=True),
    "lr-find": Command(
        "raise the learning rate until the loss diverges; suggest one", lr_find_options, lr_find, takes_recipe=True
    ),
    "sweep": Command(
        "search a space of recipes for the best validation accuracy; resumes", sweep_options, sweep, takes_recipe=True
    ),
    "all": Command("fit, then bundle", everything_options, everything, takes_recipe=True),
}
