"""Fit: a recipe -> a run folder (training.fit.run) with checkpoints, curves, TensorBoard log and the averaged weights.

Checkpoints are for resuming. Nothing behind fit reads one: the weights to keep are a safetensors file.
"""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, ProgressBar
from lightning.pytorch.loggers.logger import Logger
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils import deterministic

from training import distributed, finished, tracking
from training.data import prepare as preparation
from training.data import shared_memory
from training.data.datamodule import ImageDataModule, served
from training.data.manifest import Manifest
from training.fit import distillation, selection
from training.fit import probe as probes
from training.fit.checkpoints import (
    DIVERGED,
    AtomicCheckpointIO,
    BestCheckpoint,
    DivergenceCheck,
    ResumableEarlyStopping,
)
from training.fit.curves import LearningCurves
from training.fit.epoch_progress import progress
from training.fit.module import Classification, compile_network
from training.fit.probe import Probe
from training.fit.run import (
    BEST,
    LAST,
    Run,
    prepare,
    read_facts,
    read_further,
    read_manifest,
    resume_point,
    save_facts,
    unfinished,
)
from training.fit.selection import Selection
from training.recipe import PrecisionName, Recipe
from visionserve import timm_networks
from visionserve.errors import BundleError
from visionserve.files import atomic_write
from visionserve.network import adapt_published, check_size, has_class_maps
from visionserve.transforms import Preprocessing

Precision = Literal["bf16-mixed", "16-mixed", "32-true"]
_log = logging.getLogger(__name__)


@shared_memory.explained()
def fit(
    recipe: Recipe,
    run: Run,
    *,
    resume: str = "none",
    cache: Path | None = None,
    fast: bool = False,
    callbacks: Sequence[Callback] = (),
) -> float:
    """Train and return the best validation accuracy (0-1).

    Args:
        resume: ``auto`` goes on from the run's last checkpoint if there is one, ``unfinished`` only if the run has not
            ended and was begun with this recipe and split, ``none`` starts again, else a path.
        cache: folder of decoded images; None puts it beside the run.
        fast: one batch of everything from a handful of images, to see that a recipe works; nothing is kept.
        callbacks: observe, or stop the run early.
    """
    if fast:
        return _rehearse(recipe, run, callbacks)
    if resume == "unfinished":
        resume = distributed.rank_zero_first(lambda: "auto" if unfinished(recipe, run) else "none", lambda: "auto")
    if resume == "auto" and run.manifest.is_file() and not (run.finished or (run.checkpoints / LAST).is_file()):
        _log.warning("no epoch of %s was finished, so it begins again, with the images and options of now", run.folder)
        resume = "none"
    module, images = begin(recipe, run, cache, fresh=resume == "none")
    tracker = tracking.begin(recipe, read_manifest(run), run.folder, fresh=resume == "none")
    tracked = tracking.callbacks(tracker, read_manifest(run).labels)
    curves = LearningCurves(run, probes.load(run.folder).accuracy if module.recipe.probe else None)
    trainer = _trainer(module.recipe, run, tracker, [curves, *tracked, *callbacks])
    checkpoint = resume_point(run, resume)
    trainer.fit(module, datamodule=images, ckpt_path=checkpoint, weights_only=True)
    return _finish(trainer, module, run)


def begin(
    recipe: Recipe, run: Run, cache: Path | None = None, *, fresh: bool = True
) -> tuple[Classification, ImageDataModule]:
    """Return the network as it starts, and its batches; the run's recipe and manifest are written."""
    manifest = distributed.rank_zero_first(lambda: prepare(recipe, run, cache, fresh=fresh), lambda: read_manifest(run))
    parts = [manifest, *read_further(run).values()]
    recipe = _sized(recipe, sum(len(part.part("train")) for part in parts))
    images = ImageDataModule(recipe, parts, cache if cache is not None else run.folder.parent / "cache")
    module = _module(recipe, manifest.labels)
    module.validated = dict(
        zip(("first", *(source.name for source in recipe.data.more)), images.validated(), strict=True)
    )
    if recipe.probe:
        network, as_served = module.network, Preprocessing(recipe.input.size, recipe.input.crop)
        probe = distributed.rank_zero_first(
            lambda: _probe(network, manifest, as_served, run), lambda: probes.load(run.folder)
        )
        module.begin_with(probe.install)
    return module, images


def _sized(recipe: Recipe, images: int) -> Recipe:
    sized = recipe.sized(images)
    if recipe.probe and not sized.probe:
        _log.warning("no linear probe: the network begins with random weights, whose features say nothing")
    if (sized.epochs, sized.optimizer) != (recipe.epochs, recipe.optimizer):
        _log.info(
            "%d training images: %d epochs (stated: %d), patience %d, learning rate %.2g (stated: %.2g), by "
            "least_steps and full_rate_images; 0 for both leaves what is stated",
            *(images, sized.epochs, recipe.epochs, sized.patience),
            *(sized.optimizer.learning_rate, recipe.optimizer.learning_rate),
        )
    return sized


def _probe(network: nn.Module, manifest: Manifest, as_served: Preprocessing, run: Run) -> Probe:
    """Return the run's linear probe, fitted unless it was before."""
    if run.probe.is_file():
        return probes.load(run.folder)
    probe = probes.fit(network, manifest, as_served)
    probe.save(run.folder)
    _log.info("linear probe, the baseline: validation accuracy %.2f %%, loss %.3f", 100 * probe.accuracy, probe.loss)
    if (count := len(manifest.part("val"))) < selection.FEWEST:
        _log.warning(
            "%d validation images cannot tell an epoch from the linear probe, which is kept in any case: from "
            "%d on they decide; --probe false keeps the best epoch",
            *(count, selection.FEWEST),
        )
    return probe


def _module(recipe: Recipe, labels: tuple[str, ...]) -> Classification:
    seed_everything(recipe.seed, workers=True, verbose=False)
    distillation.check_labels(recipe, labels)
    module = Classification(recipe, len(labels), _initial(recipe))
    if not has_class_maps(module.network):
        for size in sorted({recipe.input.size, *(stage.size for stage in recipe.stages)}):
            check_size(module.network, size)
    if recipe.machine.compile:
        compile_network(module.network)
    return module


def _rehearse(recipe: Recipe, run: Run, callbacks: Sequence[Callback]) -> float:
    """Try one batch of everything; return the validation accuracy (0-1), which means nothing."""
    manifest = preparation.handful(recipe)
    with TemporaryDirectory() as folder:
        trainer = _trainer(recipe, run, None, callbacks, fast=True)
        trainer.fit(_module(recipe, manifest.labels), datamodule=ImageDataModule(recipe, manifest, Path(folder)))
    return float(trainer.callback_metrics["val/accuracy"])


def precision(requested: PrecisionName) -> Precision:
    """Return Lightning's name of the arithmetic: bf16 where the machine computes in it, else fp32, and say so."""
    if requested == "16-mixed" and not torch.cuda.is_available():
        raise BundleError("precision 16-mixed needs a GPU: choose bf16-mixed, 32-true or auto")
    if requested != "auto":
        return requested
    if torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported()
    else:
        able = torch.cpu.get_capabilities()
        fast = bool(able.get("amx_bf16") or able.get("avx512_bf16"))
    if not fast:
        _log.warning("this machine does not compute in bf16: training in fp32, which is slower")
    return "bf16-mixed" if fast else "32-true"


def _initial(recipe: Recipe) -> dict[str, Tensor] | None:
    """Return the weights to start from, for our normalisation; None for random ones."""
    if recipe.init == "none":
        return None
    if recipe.init == "torchvision":
        return adapt_published(recipe.architecture, _published(recipe.architecture))
    if Path(recipe.init).is_dir():
        return finished.load(Path(recipe.init)).state_dict()
    if not Path(recipe.init).is_file():
        raise BundleError(
            f"init: file {recipe.init} does not exist; init is 'torchvision', 'none', a bundle or a .safetensors file"
        )
    try:
        return adapt_published(recipe.architecture, load_file(recipe.init))
    except (SafetensorError, OSError) as error:
        raise BundleError(
            f"init: {recipe.init} is not a safetensors file ({error}): give one, or 'torchvision', 'none' or a bundle; "
            "a .pth file is made one with safetensors.torch.save_file(torch.load(FILE, weights_only=True), NEW)"
        ) from error


def _published(architecture: str) -> dict[str, Tensor]:
    import torchvision

    if architecture.startswith(timm_networks.PREFIX):
        raise BundleError(
            f"torchvision has no weights of {architecture}: --init none, or a .safetensors file of timm's"
        )
    try:
        published: dict[str, Tensor] = torchvision.models.get_model(architecture, weights="DEFAULT").state_dict()
    except OSError as error:
        raise BundleError(
            f"torchvision's weights cannot be downloaded ({error}); give a file instead: --init weights.safetensors"
        ) from error
    return published


def make_trainer(recipe: Recipe, **settings: Any) -> Trainer:
    """Return a Trainer that computes as the recipe says; ``settings`` are Lightning's, on what else it does."""
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")  # a choice of the recipe
    # Of few images; the losses of each epoch are logged all the same.
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")  # Lightning's own
    for name in ("lightning.pytorch", "lightning.fabric"):
        logger = logging.getLogger(name)  # it logs the machine, an advertisement and its own progress
        logger.setLevel(max(logger.level, logging.WARNING))
    # A debugging aid of deterministic mode: it writes every new tensor twice.
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return Trainer(
        **distributed.trainer_settings(recipe),
        precision=precision(recipe.precision),
        gradient_clip_val=recipe.optimizer.clip or None,
        deterministic="warn",
        benchmark=torch.cuda.is_available(),
        num_sanity_val_steps=0,
        enable_model_summary=False,
        **settings,
    )


def _trainer(
    recipe: Recipe, run: Run, tracker: Logger | None, callbacks: Sequence[Callback], *, fast: bool = False
) -> Trainer:
    best = BestCheckpoint(run.checkpoints, "best", monitor="val/accuracy", mode="max", enable_version_counter=False)
    last = ModelCheckpoint(run.checkpoints, "last", enable_version_counter=False)  # of every epoch, to resume from
    stop = ResumableEarlyStopping("val/accuracy", mode="max", patience=recipe.patience)
    shown = progress()
    return make_trainer(
        recipe,
        max_epochs=recipe.epochs,
        logger=tracker or False,
        callbacks=[
            shown,
            *([] if fast else [DivergenceCheck(), best, last, stop]),
            *callbacks,
        ],
        enable_progress_bar=isinstance(shown, ProgressBar),  # Lightning adds one of its own otherwise
        plugins=[AtomicCheckpointIO()],
        fast_dev_run=fast,
        log_every_n_steps=20,
    )


def _finish(trainer: Trainer, module: Classification, run: Run) -> float:
    """Write the averaged weights of the best epoch."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    keep = next(c for c in callbacks if isinstance(c, BestCheckpoint))
    accuracy = float(keep.best_model_score if keep.best_model_score is not None else 0.0)
    if not distributed.is_rank_zero():
        return accuracy
    best = torch.load(run.checkpoints / BEST, map_location="cpu", weights_only=True)
    module.load_state_dict(best["state_dict"])
    weights = selection.averaged(module.weights(), module.recipe)
    facts: dict[str, Any] = {"val_accuracy": round(accuracy, 4), "epoch": best["epoch"]}
    facts |= {"epochs": module.recipe.epochs, "learning_rate": module.recipe.optimizer.learning_rate}
    kept = f"epoch {best['epoch']}"
    if module.recipe.probe:
        probe = probes.load(run.folder)
        weights, choice = _beside_probe(module.recipe, weights, probe, run)
        accuracy, kept = choice.accuracy, choice.of_epoch(best["epoch"])
        facts |= {"val_accuracy": round(accuracy, 4), "keeps": choice.name, "epoch_share": choice.share}
        facts |= {"probe_val_accuracy": round(probe.accuracy, 4)}
        facts |= {"probe_test_right": probe.test_right, "probe_test_images": probe.test_images}
    if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
        raise BundleError(f"{run.folder}: the weights of epoch {best['epoch']} are not finite. {DIVERGED}")
    with atomic_write(run.weights) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, temporary)
    save_facts(run, read_facts(run) | facts)
    baseline = f" (linear probe: {100 * facts['probe_val_accuracy']:.2f} %)" if module.recipe.probe else ""
    _log.info("validation accuracy %.2f %%%s, kept: %s; %s", 100 * accuracy, baseline, kept, run.weights)
    return accuracy


def _beside_probe(
    recipe: Recipe, weights: dict[str, Tensor], probe: Probe, run: Run
) -> tuple[dict[str, Tensor], Selection]:
    """Return the weights to keep: the probe's, those of the best epoch, or weights between the two."""
    manifest = read_manifest(run)
    start = _module(recipe, manifest.labels)
    start.begin_with(probe.install)
    images, targets = served(manifest, "val", Preprocessing(recipe.input.size, recipe.input.crop))
    if len(targets) < selection.FEWEST:
        return start.weights(), Selection(0.0, probe.accuracy)
    choice = selection.select(selection.logits_between(start, weights, images), targets)
    return selection.between(start.weights(), weights, choice.share), choice
