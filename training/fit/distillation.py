"""Distillation: learning from a finished bundle or run, by its weights to start from or by its outputs as targets.

A teacher is any network that is trained here: other architectures of torchvision and timm, other sizes of the input.

images --+--> network --> logits ----+--> cross entropy with the labels            x (1 - share)
         `--> teacher --> its logits `--> divergence from the teacher's outputs    x share
"""

import logging
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, kl_div, log_softmax

from training import finished
from training.data.manifest import FILE_NAME as MANIFEST
from training.data.manifest import Manifest, seen_by
from training.recipe import Recipe, Teacher
from visionserve.errors import BundleError
from visionserve.network import MEAN, STD, has_class_maps

_log = logging.getLogger(__name__)


class DistillationLoss:
    """Compares a network in training with its teachers, whose weights are in no checkpoint and are not trained."""

    def __init__(self, settings: Teacher) -> None:
        """Load the teachers, if there are any."""
        self.share = settings.share if settings.folders else 0.0
        self._temperature, self._size = settings.temperature, settings.size
        self._networks: list[nn.Module] = []  # not a ModuleList: they belong to no module
        for folder in settings.folders:
            teacher = finished.load(folder).requires_grad_(False).to(memory_format=torch.channels_last)
            if not settings.size and not has_class_maps(teacher):
                size = finished.card_of(folder).input.size
                _log.warning("the teacher sees the sizes of the stages; --teacher.size %d is its own", size)
            self._networks.append(teacher)

    def loss(self, inputs: Tensor, logits: Tensor) -> Tensor:
        """Return how far ``logits`` (B, C) are from the teachers' answer to the same normalised ``inputs``."""
        if not self._networks:
            return logits.new_zeros(())
        with torch.no_grad():
            if self._size and inputs.shape[-1] != self._size:
                inputs = interpolate(inputs, (self._size, self._size), mode="bilinear", antialias=True)
            answers = [teacher.to(inputs.device)(inputs).float().log_softmax(dim=1) for teacher in self._networks]
            expected = torch.stack(answers).mean(dim=0)
        return divergence(logits, expected, self._temperature)


def divergence(logits: Tensor, expected: Tensor, temperature: float) -> Tensor:
    """Return the mean Kullback-Leibler divergence of softened answers (B, C) from the ``expected`` ones.

    Times the temperature squared, so that its gradient is as large as that of the labels' loss (arXiv 1503.02531, 2).
    """
    softened, targets = (log_softmax(answers / temperature, dim=1) for answers in (logits, expected))
    return kl_div(softened, targets, reduction="batchmean", log_target=True) * temperature**2


def check_leak(recipe: Recipe, manifest: Manifest) -> dict[str, str]:
    """Return SHA-256 -> ``train`` or ``val`` of the images that the bundles which the recipe learns from have seen.

    That is their training and validation images, and those of the bundles that they were made from in turn.

    Raises:
        BundleError: a test image of ``manifest`` is one of them, or a validation image is one that they were trained
            on: the accuracy would be overstated.
    """
    all_seen: dict[str, str] = {}
    for bundle in _bundles(recipe):
        seen = seen_by(bundle)
        allowed = {"train": ("train", "val", None), "val": ("val", None), "test": (None,)}
        leaks = [row for row in manifest.rows if seen.get(row.sha256) not in allowed[row.split]]
        if leaks:
            held_out = len(manifest.part("val")) + len(manifest.part("test"))
            raise BundleError(
                f"{bundle} was trained or chosen on {len(leaks)} of the {held_out} validation and test images of this "
                f"run ({leaks[0].path} is one): its accuracy would be overstated. Use the split of that bundle: "
                f"--data.manifest {bundle / MANIFEST}"
            )
        if seen:
            _log.info(
                "%s was not trained on this run's validation and test images, nor chosen on its test images, "
                "by content: copies at another size or quality are not recognised",
                bundle,
            )
        all_seen |= {digest: all_seen.get(digest, role) if role == "val" else role for digest, role in seen.items()}
    return all_seen


def _bundles(recipe: Recipe) -> list[Path]:
    """Return the bundles whose weights or outputs the recipe learns from."""
    return [*([Path(recipe.init)] if Path(recipe.init).is_dir() else []), *recipe.teacher.folders]


def check_labels(recipe: Recipe, labels: tuple[str, ...]) -> None:
    """Raise a BundleError when a bundle that the recipe learns from has other labels or another normalisation."""
    for folder in _bundles(recipe):
        card = finished.card_of(folder)
        if card.labels != labels:
            raise BundleError(f"{folder} has other labels than these images: learn from a bundle with the same")
        if (card.input.mean, card.input.std) != (MEAN, STD):
            raise BundleError(f"{folder} has another normalisation of its input: learn from a bundle made here")
