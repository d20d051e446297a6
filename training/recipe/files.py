"""Recipes as YAML, as options and as entries: read, written, and revised by an entry's name."""

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from training.recipe.recipe import Recipe
from visionserve.errors import BundleError
from visionserve.files import write_text

RENAMED = {"optimiser": "optimizer", "data.broken": "data.corrupt"}  # entries: former name -> name


class RecipeParser(ArgumentParser):
    """Reads the file behind ``--config`` first, then ``TRAIN_*`` variables, then the other options: the last wins.

    jsonargparse by itself would let the file win over the environment.
    """

    def parse_args(  # type: ignore[override]  # argparse declares overloads
        self, args: Sequence[str] | None = None, *rest: Any, **settings: Any
    ) -> Namespace:
        """Parse the command line; a file that does not exist or an entry's former name is a usage error."""
        first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        first.add_argument("-c", "--config")
        config, others = first.parse_known_args(args)
        former = _former_option([*others, *os.environ])
        if config.config is not None:
            if not Path(config.config).is_file():
                self.error(f"recipe {config.config} does not exist")
            former = former or _former_entry(Path(config.config).read_text(encoding="utf-8"))
            self.default_config_files = [config.config]
        if former:
            self.error(former)
        return super().parse_args(others, *rest, **settings)


def parser() -> RecipeParser:
    """Return a parser with ``--config`` and one option per entry of the recipe."""
    parser = RecipeParser(default_env=True, env_prefix="TRAIN")
    parser.add_argument("-c", "--config", help="a recipe in YAML; TRAIN_* variables and options win over it")
    parser.add_class_arguments(Recipe)
    return parser


def resolve(options: Namespace) -> Recipe:
    """Return the recipe among parsed options; an impossible one is a BundleError."""
    entries = Namespace(**{name: options[name] for name in _NAMES})  # type: ignore[no-untyped-call]
    values = _bare(exit_on_error=True).instantiate(entries)
    return Recipe(**{name: values[name] for name in _NAMES})


def save(recipe: Recipe, path: Path) -> None:
    """Write the resolved recipe as YAML that ``--config`` reads back."""
    write_text(path, text(recipe))


def text(recipe: Recipe) -> str:
    """Return the resolved recipe as YAML."""
    return yaml.safe_dump(plain(recipe), sort_keys=False)


def load(path: Path) -> Recipe:
    """Read a recipe from YAML; an unknown key or a wrong type is a BundleError."""
    bare = _bare(exit_on_error=False)
    try:
        content = path.read_text(encoding="utf-8")
        return resolve(bare.parse_string(content))
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    except ArgumentError as error:
        raise BundleError(f"{path} is not a valid recipe: {_former_entry(content) or error}") from error


def revise(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """Return the recipe with other values for entries such as ``optimizer.learning_rate`` or ``stages.0.size``.

    An unknown entry, a wrong type or an impossible recipe is a BundleError.
    """
    content = plain(recipe)
    for entry, new in changes.items():
        section, key = _find(content, entry)
        section[key] = new
    try:
        return resolve(_bare(exit_on_error=False).parse_object(content))
    except ArgumentError as error:
        raise BundleError(f"invalid recipe with {dict(changes)}: {' '.join(str(error).split())}") from error


def value(recipe: Recipe, entry: str) -> Any:
    """Return the value of an entry such as ``stages.0.size``; a BundleError when there is none."""
    section, key = _find(plain(recipe), entry)
    return section[key]


def plain(recipe: Recipe) -> dict[str, Any]:
    """Return lists and dictionaries only, as YAML wants them."""
    content: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    return content


def flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ``optimizer.clip``, 0.0 and so on for a recipe that is `plain`."""
    for name, value in content.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield from flat({str(index): entry for index, entry in enumerate(value)}, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _find(content: Any, entry: str) -> tuple[Any, str | int]:
    """Return the section or list that holds an entry, and its key there."""
    *above, last = (int(part) if part.isdecimal() else part for part in entry.split("."))
    try:
        for part in above:
            content = content[part]
        if isinstance(content, str) or isinstance(content[last], dict):
            raise TypeError("no entry but a word or a section")
    except (LookupError, TypeError) as error:
        raise BundleError(f"a recipe has no entry {entry}") from error
    return content, last


def _former_entry(content: str) -> str:
    """Return a sentence on the first entry of a YAML text that has another name now; an empty one if there is none."""
    try:
        entries = yaml.safe_load(content)
    except yaml.YAMLError:
        return ""  # the parser says what is wrong with it
    for former, now in RENAMED.items():
        section: Any = entries
        for part in former.split("."):
            section = section.get(part) if isinstance(section, dict) else None
        if section is not None:
            return _now_called(former, now)
    return ""


def _former_option(names: Sequence[str]) -> str:
    """Return the same for options and environment variables."""
    for former, now in RENAMED.items():
        variable = "TRAIN_" + former.upper().replace(".", "__")
        for name in names:
            if name.startswith((f"--{former}.", f"--{former}=", variable)) or name == f"--{former}":
                return _now_called(former, now)
    return ""


def _now_called(former: str, now: str) -> str:
    values = ", error or skip" if now == "data.corrupt" else ""
    return f"the entry `{former}` is now called `{now}`{values}"


_NAMES = tuple(entry.name for entry in fields(Recipe))


def _bare(exit_on_error: bool) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=exit_on_error)
    parser.add_class_arguments(Recipe)
    return parser
