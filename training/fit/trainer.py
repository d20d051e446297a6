"""Fit: a recipe -> a run folder with manifest, checkpoints, TensorBoard log and the averaged weights.

    <run>/recipe.yaml  manifest.csv  run.json  checkpoints/{best,last}.ckpt  version_N/  weights.safetensors

Checkpoints are for resuming. Nothing behind fit reads one: the weights to keep are a safetensors file.
"""

import json
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers.logger import Logger
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils import deterministic

from training import distributed, tracking
from training import recipe as recipes
from training.data import corrupt_files
from training.data import manifest as manifests
from training.data import prepare as preparation
from training.data.datamodule import ImageDataModule
from training.fit import distillation
from training.fit.checkpoints import AtomicCheckpointIO, ResumableEarlyStopping
from training.fit.module import Classification, compile_network
from training.networks import load_network
from training.recipe import PrecisionName, Recipe
from visionserve import timm_networks
from visionserve.errors import BundleError
from visionserve.files import atomic_write, write_text
from visionserve.network import adapt_imagenet

Precision = Literal["bf16-mixed", "16-mixed", "32-true"]
LAST, BEST = "last.ckpt", "best.ckpt"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """Where a run's files are."""

    folder: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.folder / "recipe.yaml"

    @property
    def manifest(self) -> Path:
        """What the run learns from and is measured on."""
        return self.folder / "manifest.csv"

    @property
    def facts(self) -> Path:
        """Root folder, labels and, when finished, the best validation accuracy."""
        return self.folder / "run.json"

    @property
    def checkpoints(self) -> Path:
        """Lightning's checkpoints."""
        return self.folder / "checkpoints"

    @property
    def weights(self) -> Path:
        """The averaged weights of the best epoch, written when the run ends."""
        return self.folder / "weights.safetensors"


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
        resume = distributed.rank_zero_first(lambda: "auto" if _unfinished(recipe, run) else "none", lambda: "auto")
    module, images = begin(recipe, run, cache, fresh=resume == "none")
    tracker = tracking.begin(recipe, read_manifest(run), run.folder, fresh=resume == "none")
    tracked = tracking.callbacks(tracker, read_manifest(run).labels)
    trainer = _trainer(recipe, run, tracker, [*tracked, *callbacks])
    checkpoint = _resume_point(run, resume)
    trainer.fit(module, datamodule=images, ckpt_path=checkpoint, weights_only=True)
    return _finish(trainer, module, run)


def begin(
    recipe: Recipe, run: Run, cache: Path | None = None, *, fresh: bool = True
) -> tuple[Classification, ImageDataModule]:
    """Return the network as it starts, and its batches; the run's recipe and manifest are written."""
    manifest = distributed.rank_zero_first(lambda: prepare(recipe, run, cache, fresh=fresh), lambda: read_manifest(run))
    images = ImageDataModule(recipe, manifest, cache if cache is not None else run.folder.parent / "cache")
    return _module(recipe, manifest.labels), images


def _module(recipe: Recipe, labels: tuple[str, ...]) -> Classification:
    seed_everything(recipe.seed, workers=True, verbose=False)
    distillation.check_labels(recipe, labels)
    module = Classification(recipe, len(labels), _initial(recipe))
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


def prepare(recipe: Recipe, run: Run, cache: Path | None = None, *, fresh: bool) -> manifests.Manifest:
    """Write the run's recipe, manifest and list of corrupt files, or read the manifest back and verify it.

    The manifest is written last: when it is there, so is the rest.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    if run.manifest.is_file() and not fresh:
        _same_images(recipes.load(run.recipe), recipe, run)
        recipes.save(recipe, run.recipe)
        manifest = read_manifest(run)
        manifest.verify()
        return manifest
    manifest, left_out = preparation.make(recipe.data, cache if cache is not None else run.folder.parent / "cache")
    for old in (run.manifest, run.checkpoints / LAST, run.checkpoints / BEST, run.weights):  # of another run
        old.unlink(missing_ok=True)
    recipes.save(recipe, run.recipe)
    corrupt_files.save(left_out, run.folder / corrupt_files.FILE_NAME)
    _state(run, {"root": str(manifest.root.resolve()), "labels": list(manifest.labels)})
    manifest.save(run.manifest)
    return manifest


def read_manifest(run: Run) -> manifests.Manifest:
    """Read what a run was trained on."""
    try:
        facts = json.loads(run.facts.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{run.folder} is not the folder of a run: {error}") from error
    return manifests.load(run.manifest, Path(facts["root"]), tuple(facts["labels"]))


def _state(run: Run, facts: dict[str, Any]) -> None:
    write_text(run.facts, json.dumps(facts, indent=1, ensure_ascii=False))


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
        return adapt_imagenet(_published(recipe.architecture))
    if Path(recipe.init).is_dir():
        return load_network(Path(recipe.init)).state_dict()
    if not Path(recipe.init).is_file():
        raise BundleError(
            f"init: file {recipe.init} does not exist; init is 'torchvision', 'none', a bundle or a .safetensors file"
        )
    return adapt_imagenet(load_file(recipe.init))


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


def _same_images(old: Recipe, new: Recipe, run: Run) -> None:
    """Refuse to go on with other images: those of the new test split may already have been trained on."""
    for name in ("source", "split", "seed", "manifest"):
        if getattr(old.data, name) != getattr(new.data, name):
            raise BundleError(f"{run.folder} was begun with another data.{name}: use --resume none or another --run")
    if old.architecture != new.architecture:
        raise BundleError(f"{run.folder} was begun as a {old.architecture}: use --resume none or another --run")


def _unfinished(recipe: Recipe, run: Run) -> bool:
    """Whether the run has not ended and was begun with the same recipe and split."""
    if run.weights.is_file() or not run.manifest.is_file() or recipes.load(run.recipe) != recipe:
        return False
    manifest = recipe.data.manifest
    return manifest is None or Path(manifest).read_bytes() == run.manifest.read_bytes()


def _resume_point(run: Run, resume: str) -> Path | None:
    if resume == "none":
        return None
    last = run.checkpoints / LAST if resume == "auto" else Path(resume)
    if last.is_file():
        return last
    if resume == "auto":
        return None
    raise BundleError(f"checkpoint {last} does not exist")


def make_trainer(recipe: Recipe, **settings: Any) -> Trainer:
    """Return a Trainer that computes as the recipe says; ``settings`` are Lightning's, on what else it does."""
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")  # a choice of the recipe
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
    best = ModelCheckpoint(run.checkpoints, "best", monitor="val/accuracy", mode="max", enable_version_counter=False)
    last = ModelCheckpoint(run.checkpoints, "last", enable_version_counter=False)  # of every epoch, to resume from
    stop = ResumableEarlyStopping("val/accuracy", mode="max", patience=recipe.patience)
    return make_trainer(
        recipe,
        max_epochs=recipe.epochs,
        logger=tracker or False,
        callbacks=[
            TQDMProgressBar(refresh_rate=20),
            *([] if fast else [best, last, stop]),
            *callbacks,
        ],
        plugins=[AtomicCheckpointIO()],
        fast_dev_run=fast,
        log_every_n_steps=20,
    )


def _finish(trainer: Trainer, module: Classification, run: Run) -> float:
    """Write the averaged weights of the best epoch."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    keep = next(c for c in callbacks if isinstance(c, ModelCheckpoint) and c.monitor)
    accuracy = float(keep.best_model_score if keep.best_model_score is not None else 0.0)
    if not distributed.is_rank_zero():
        return accuracy
    best = torch.load(run.checkpoints / BEST, map_location="cpu", weights_only=True)
    module.load_state_dict(best["state_dict"])
    with atomic_write(run.weights) as unfinished:
        save_file({name: tensor.contiguous() for name, tensor in module.weights().items()}, unfinished)
    facts = json.loads(run.facts.read_text(encoding="utf-8")) | {
        "val_accuracy": round(accuracy, 4),
        "epoch": best["epoch"],
    }
    _state(run, facts)
    _log.info("best validation accuracy %.2f %% in epoch %d: %s", 100 * accuracy, best["epoch"], run.weights)
    return accuracy
