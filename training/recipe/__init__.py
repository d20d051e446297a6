"""The recipe of a training run: every choice that changes the result, typed, with the reason for its default.

Read from YAML by jsonargparse (training/__main__.py), so an unknown key is an error. Precedence, highest first: command
line, environment, file.
"""

from training.recipe.data import Data, LabelsCsv, Shares, Source, SourceName, SplitName
from training.recipe.environment import Machine, TrackerName, Tracking
from training.recipe.files import flat, load, parser, plain, resolve, revise, save, text, value
from training.recipe.optimization import Augment, Input, Optimizer, OptimizerName, Stage, Teacher
from training.recipe.recipe import PrecisionName, Recipe

__all__ = [
    "Augment",
    "Data",
    "Input",
    "LabelsCsv",
    "Machine",
    "Optimizer",
    "OptimizerName",
    "PrecisionName",
    "Recipe",
    "Shares",
    "Source",
    "SourceName",
    "SplitName",
    "Stage",
    "Teacher",
    "TrackerName",
    "Tracking",
    "flat",
    "load",
    "parser",
    "plain",
    "resolve",
    "revise",
    "save",
    "text",
    "value",
]
