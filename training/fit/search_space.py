"""A space of recipes: which entries a sweep may change, between which bounds or among which choices; read from YAML.

optimizer.learning_rate: {low: 0.001, high: 0.1, log: true}
input.size: {choices: [192, 224]}
epochs: {low: 10, high: 30, step: 5}
"""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from optuna import Trial

from training import recipe as recipes
from training.recipe import Recipe
from visionserve.errors import BundleError

Value = float | int | str | bool | None


@dataclass(frozen=True)
class Dimension:
    """One entry of the recipe: from ``low`` to ``high``, both included, or one of the ``choices``."""

    entry: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    step: float | None = None
    choices: tuple[Value, ...] = ()
    whole: bool = False

    def suggest(self, trial: Trial) -> Value:
        """Return the trial's value."""
        if self.choices:
            return trial.suggest_categorical(self.entry, self.choices)
        if self.low is None or self.high is None:
            raise ValueError("a dimension has bounds or choices")
        if self.whole:
            step = 1 if self.step is None else int(self.step)
            return trial.suggest_int(self.entry, int(self.low), int(self.high), step=step, log=self.log)
        return trial.suggest_float(self.entry, self.low, self.high, step=self.step, log=self.log)

    def ends(self) -> tuple[Value, ...]:
        """Return the values that stand for all: the choices, or the bounds."""
        bounds = (self.low, self.high)
        return self.choices or tuple(int(end) if self.whole and end is not None else end for end in bounds)


Space = tuple[Dimension, ...]
_SETTINGS = {entry.name for entry in fields(Dimension)} - {"entry", "whole"}


def load(path: Path, recipe: Recipe) -> Space:
    """Read a space for ``recipe``; an unknown entry or an impossible range is a BundleError that names it."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise BundleError(f"{path} is not a readable search space: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not content:
        raise BundleError(
            f"{path} is not a search space: it needs lines like `optimizer.learning_rate: {{low: 0.001, high: 0.1}}`"
        )
    try:
        return tuple(_dimension(str(entry), settings, recipe) for entry, settings in content.items())
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from error


def plain(space: Space) -> list[dict[str, Any]]:
    """Return what JSON can hold, to see whether two spaces are the same."""
    return [asdict(dimension) | {"choices": list(dimension.choices)} for dimension in space]


def _dimension(entry: str, settings: Any, recipe: Recipe) -> Dimension:
    if not isinstance(settings, dict) or not settings.keys() <= _SETTINGS:
        raise BundleError(f"{entry} needs {{low, high}}, with log or step if wanted, or {{choices}}, not {settings}")
    dimension = _choice(entry, settings) if "choices" in settings else _range(entry, settings, recipe)
    for value in dimension.ends():
        recipes.revise(recipe, {entry: value})
    return dimension


def _choice(entry: str, settings: dict[str, Any]) -> Dimension:
    choices = settings["choices"]
    if len(settings) > 1 or not isinstance(choices, list) or not choices:
        raise BundleError(f"{entry}: choices is a list and stands alone")
    if not all(choice is None or isinstance(choice, float | int | str) for choice in choices):
        raise BundleError(f"{entry}: a choice is a number, a word, true, false or null")
    return Dimension(entry, choices=tuple(choices))


def _range(entry: str, settings: dict[str, Any], recipe: Recipe) -> Dimension:
    for name in ("low", "high", "step"):
        value = settings.get(name)
        if (value is None and name != "step") or isinstance(value, bool | str | list | dict):
            raise BundleError(
                f"{entry}: {name} must be a number, not {value!r} (in YAML 1e-3 is a word, 1.0e-3 is not)"
            )
    low, high, step = settings["low"], settings["high"], settings.get("step")
    log = settings.get("log", False)
    if not isinstance(log, bool) or (log and step is not None):
        raise BundleError(f"{entry}: log is true or false, and true excludes a step")
    if low >= high or (log and low <= 0) or (step is not None and not 0 < step <= high - low):
        raise BundleError(f"{entry}: low must be below high{' and above 0' if log else ''}, a step fits between them")
    now = recipes.value(recipe, entry)
    whole = isinstance(now, int)
    if whole and not all(float(end).is_integer() for end in (low, high, step or 1)):
        raise BundleError(f"{entry} is a whole number, so low, high and step are")
    return Dimension(entry, low, high, log, step, whole=whole)
