"""The commands of `python -m training`, one module per stage: their options, and what runs.

These modules are imported to print any help text, so what takes seconds to import (torch, Lightning, scipy, ...) is
imported inside the functions that run.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        summary: one line for the overview and the top of ``--help``.
        add_arguments: declares the options; for a command with a recipe, those that are not part of it.
        run: takes the parsed options and returns the exit status.
        takes_recipe: the entries of the recipe are options too.
    """

    summary: str
    add_arguments: Callable[[Any], None]
    run: Callable[[Any], int]
    takes_recipe: bool = False
