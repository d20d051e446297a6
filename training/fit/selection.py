"""What a run keeps: its linear probe, its best epoch, or weights between the two, by the validation images.

Weights between a start and what was fine-tuned from it are often better than both (Wortsman et al. 2022, arXiv
2109.01903). The few validation images of a small folder cannot tell all of these apart, so the rule of one standard
error (Breiman et al. 1984) decides: of those that are not clearly worse than the best, the one nearest to the probe.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.special import ndtr, stdtrit
from torch import Tensor

from training import finished
from training.data.cache import Pixels
from training.data.datamodule import VAL_BATCH
from training.evaluation.calibration import choose_temperature, log_losses, probabilities
from training.fit.module import Classification
from training.recipe import Recipe
from visionserve.errors import BundleError

_log = logging.getLogger(__name__)
SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # of the epoch; 0 is the probe
# Validation images below which the probe is kept: of 5, the best of a hundred epochs is chance (docs/LOG.md).
FEWEST = 20


@dataclass(frozen=True)
class Selection:
    """The share that an epoch has in the weights that are kept, and their accuracy (0-1) on validation."""

    share: float
    accuracy: float

    @property
    def name(self) -> str:
        """Return what is kept in a word: probe, average or epoch."""
        return {0.0: "probe", 1.0: "epoch"}.get(self.share, "average")

    def of_epoch(self, epoch: int) -> str:
        """Return what is kept, for the log."""
        if self.share in (0, 1):
            return f"epoch {epoch}" if self.share else "the linear probe, than which no epoch is shown to be better"
        return f"an average, {100 * self.share:.0f} % epoch {epoch} and the rest the linear probe"


def select(logits: Mapping[float, np.ndarray], targets: np.ndarray) -> Selection:
    """Return the least share that is neither less accurate than the probe nor clearly worse than the best share.

    Clearly worse is a mean loss that is larger by more than one standard error of the paired differences. The losses
    are those at the temperature that each would be served with.

    Args:
        logits: by share, 0 (the probe) included; (N, C) of the same images.
        targets: (N,) label indices.
    """
    right = {share: int((of_share.argmax(1) == targets).sum()) for share, of_share in logits.items()}
    losses = {
        share: log_losses(probabilities(of_share, choose_temperature(of_share, targets)[0]), targets)
        for share, of_share in logits.items()
        if right[share] >= right[0.0]
    }
    best = min(losses, key=lambda share: (losses[share].mean(), share))
    share = next(share for share in sorted(losses) if _within_error(losses[share] - losses[best]))
    return Selection(share, right[share] / len(targets))


def averaged(weights: dict[str, Tensor], recipe: Recipe) -> dict[str, Tensor]:
    """Return trained weights averaged with those that the run started from, which have ``init_share`` of it.

    Raises:
        BundleError: the start is not a bundle, whose head is for the same labels.
    """
    if not recipe.init_share:
        return weights
    if not Path(recipe.init).is_dir():
        raise BundleError(f"init_share needs a bundle as init, not {recipe.init}")
    start = finished.load(Path(recipe.init)).state_dict()
    _log.info("the weights that are kept have a share of %.2g of those of %s", recipe.init_share, recipe.init)
    return between(start, weights, 1 - recipe.init_share)


def between(start: Mapping[str, Tensor], tuned: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Return weights of which ``share`` are those of ``tuned``; counters are its own."""
    return {
        name: start[name].to(tensor).lerp(tensor, share) if tensor.is_floating_point() else tensor
        for name, tensor in tuned.items()
    }


def logits_between(module: Classification, tuned: Mapping[str, Tensor], images: Pixels) -> dict[float, np.ndarray]:
    """Return the logits (N, C) of images (N, S, S, 3) by share, between a module's weights and ``tuned``."""
    start = module.weights()
    network = module.network.eval()
    results = {}
    for share in SHARES:
        network.load_state_dict(between(start, tuned, share))
        with torch.no_grad():
            pieces = [
                network(module.prepare(torch.from_numpy(images[first : first + VAL_BATCH]))).float()
                for first in range(0, len(images), VAL_BATCH)
            ]
        results[share] = torch.cat(pieces).numpy()
    return results


def _within_error(excess: np.ndarray) -> bool:
    """Return whether a mean of differences (N,) is at most one standard error above 0; one image proves nothing.

    Of few images as many standard errors as make Student's t as improbable: 1.8 of 2, 1.1 of 10.
    """
    count = len(excess)
    if count < 2:
        return True
    errors = stdtrit(count - 1, ndtr(1.0))
    return bool(excess.mean() <= errors * excess.std(ddof=1) / count**0.5)
