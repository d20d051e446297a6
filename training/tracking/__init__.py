"""Tracking: a run's parameters, curves, pictures and bundle in TensorBoard, MLflow or Weights & Biases.

    fit    -> begin -> Journal (Lightning's logger) -> one of three trackers
                       Pictures (callback)         -'
    bundle -> keep  -------------------------------> the same run of the same tracker, found by <run>/tracking.json

A tracker that cannot be used is refused before the training starts; one that fails later never stops it.
"""

import importlib
import logging
from pathlib import Path

from lightning.pytorch.callbacks import Callback, LearningRateMonitor
from lightning.pytorch.loggers.logger import DummyLogger, Logger

from training import distributed
from training import recipe as recipes
from training.data.manifest import Manifest
from training.recipe import Recipe
from training.tracking import state as states
from training.tracking.callback import Pictures
from training.tracking.logger import Journal, sentence
from training.tracking.parameters import parameters
from training.tracking.state import State
from training.tracking.tracker import Tracker
from visionserve.errors import BundleError
from visionserve.model_card import ModelCard

_log = logging.getLogger(__name__)


def begin(recipe: Recipe, manifest: Manifest, folder: Path, *, anew: bool) -> Logger | None:
    """Begin the tracker's run of the run in ``folder``, or go on with it unless ``anew``; None tracks nothing.

    Raises:
        BundleError: the tracker is not installed or does not answer.
    """
    if recipe.tracking.tracker == "none":
        return None
    if not distributed.first():  # it writes for all; the others need a logger too, or they would be told otherwise
        return DummyLogger()
    found = None if anew else states.read(folder)
    if found is None or not found.belongs_to(recipe.tracking):
        found = State(recipe.tracking.tracker, recipe.tracking.uri)
    tracker = _open(recipe, folder, found)
    found.id = tracker.id
    found.save(folder)
    try:
        tracker.parameters(parameters(recipe, manifest), recipes.text(recipe))
    except Exception as error:
        raise BundleError(f"{recipe.tracking.tracker} does not take the run's parameters: {sentence(error)}") from error
    return Journal(tracker, found, folder)


def callbacks(logger: Logger | None, labels: tuple[str, ...]) -> list[Callback]:
    """Return what the trainer needs to log learning rates and pictures to ``logger``."""
    return [] if logger is None else [LearningRateMonitor("epoch"), Pictures(logger, labels)]


def keep(folder: Path, bundle: Path, card: ModelCard) -> None:
    """Keep the bundle of the run in ``folder`` as an artifact of its tracker's run; a failure is a warning.

    The bundle exists already, and is worth more than its copy.
    """
    recipe, found = recipes.load(folder / "recipe.yaml"), states.read(folder)
    if found is None or not found.belongs_to(recipe.tracking):
        return
    try:
        tracker = _open(recipe, folder, found)
        tracker.bundle(bundle, card, found.last)
        tracker.close("success")
    except Exception as error:  # noqa: BLE001  # each tracker's library has errors of its own
        _log.warning("%s is made, but %s did not take it: %s", bundle, recipe.tracking.tracker, sentence(error))
        return
    found.sent += 1
    found.save(folder)
    _log.info("%s is kept in %s", bundle, tracker.place)


def _open(recipe: Recipe, folder: Path, found: State) -> Tracker:
    """Open the tracker that the recipe names; each is imported only when it is used."""
    name = recipe.tracking.tracker
    try:
        module = importlib.import_module(f"training.tracking.{name}")
    except ImportError as error:
        raise BundleError(
            f"tracking.tracker: {name} is not installed ({error.name}): `pip install {name}`, or choose none"
        ) from error
    try:
        tracker: Tracker = module.open_tracker(recipe, folder, found)
    except BundleError:
        raise
    except Exception as error:  # each tracker's library has errors of its own
        where = f" at {recipe.tracking.uri}" if recipe.tracking.uri else ""
        raise BundleError(
            f"tracking.tracker: {name} cannot be used{where} ({sentence(error)}): "
            "start or reach it first, or choose another --tracking.tracker"
        ) from error
    return tracker
