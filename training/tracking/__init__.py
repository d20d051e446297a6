"""Tracking: a run's parameters, curves, images and bundle in TensorBoard, MLflow or Weights & Biases.

    fit    -> begin -> TrackerLogger (Lightning's logger) -> one of three trackers
                       ImageLogger (callback)           -'
    bundle -> keep  -------------------------------> the same run of the same tracker, state by <run>/tracking.json

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
from training.tracking.callback import ImageLogger
from training.tracking.logger import TrackerLogger, sentence
from training.tracking.tracker import State, Tracker, parameters, read_state
from visionserve.errors import BundleError
from visionserve.model_card import ModelCard

_log = logging.getLogger(__name__)


def begin(recipe: Recipe, manifest: Manifest, folder: Path, *, fresh: bool) -> Logger | None:
    """Begin the tracker's run of the run in ``folder``, or go on with it unless ``fresh``; None tracks nothing.

    Raises:
        BundleError: the tracker is not installed or does not answer.
    """
    if recipe.tracking.tracker == "none":
        return None
    if not distributed.is_rank_zero():  # it writes for all; the others need a logger too, or Lightning would make one
        return DummyLogger()
    state = None if fresh else read_state(folder)
    if state is None or not state.belongs_to(recipe.tracking):
        state = State(recipe.tracking.tracker, recipe.tracking.uri)
    tracker = _open(recipe, folder, state)
    state.id = tracker.id
    state.save(folder)
    try:
        tracker.parameters(parameters(recipe, manifest), recipes.text(recipe))
    except Exception as error:
        raise BundleError(f"{recipe.tracking.tracker} does not take the run's parameters: {sentence(error)}") from error
    return TrackerLogger(tracker, state, folder)


def callbacks(logger: Logger | None, labels: tuple[str, ...]) -> list[Callback]:
    """Return what the trainer needs to log learning rates and images to ``logger``."""
    return [] if logger is None else [LearningRateMonitor("epoch"), ImageLogger(logger, labels)]


def keep(folder: Path, bundle: Path, card: ModelCard) -> None:
    """Keep the bundle of the run in ``folder`` as an artifact of its tracker's run; a failure is a warning.

    The bundle exists already, and is worth more than its copy.
    """
    recipe, state = recipes.load(folder / "recipe.yaml"), read_state(folder)
    if state is None or not state.belongs_to(recipe.tracking):
        return
    try:
        tracker = _open(recipe, folder, state)
        logged = tracker.bundle(bundle, card, state.last)
        tracker.close("success")
    except Exception as error:  # noqa: BLE001  # each tracker's library has errors of its own
        _log.warning("%s is made, but %s did not take it: %s", bundle, recipe.tracking.tracker, sentence(error))
        return
    state.sent += 1
    state.save(folder)
    _log.info("%s", logged)


def _open(recipe: Recipe, folder: Path, state: State) -> Tracker:
    """Open the tracker that the recipe names; each is imported only when it is used."""
    name = recipe.tracking.tracker
    try:
        module = importlib.import_module(f"training.tracking.{name}")
    except ImportError as error:
        raise BundleError(
            f"tracking.tracker: {name} is not installed ({error.name}): `pip install {name}`, or choose none"
        ) from error
    try:
        tracker: Tracker = module.open_tracker(recipe, folder, state)
    except BundleError:
        raise
    except Exception as error:  # each tracker's library has errors of its own
        where = f" at {recipe.tracking.uri}" if recipe.tracking.uri else ""
        raise BundleError(
            f"tracking.tracker: {name} cannot be used{where} ({sentence(error)}): "
            "start or reach it first, or choose another --tracking.tracker"
        ) from error
    return tracker
