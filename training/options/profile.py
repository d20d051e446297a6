"""The options of `python -m training fit --profile`."""

from jsonargparse import ArgumentParser

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
