"""Novelty: how unlike the training images an image is, as a percentile of the validation images.

embedding -> Mahalanobis distance to the nearest class mean, one covariance for all classes (Lee et al. 2018, arXiv
             1807.03888, equation 2, at the last layer)
logits    -> the largest of them: the strongest evidence for any label (Hendrycks et al. 2022, arXiv 1911.11132)

Twice the second is subtracted from the first, each in units of its standard deviation among validation images, and the
result is ranked among those of the validation images: 0.5 is an ordinary image, 1.0 is stranger than all of them. What
one of the two misses the other often detects; docs/LOG.md compares them with a dozen more.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from visionserve.errors import BundleError

FILE_NAME = "reference.safetensors"
# Shrinkage of the covariance towards a multiple of the identity: with a few thousand images and 512 dimensions
# the smallest eigenvalues are noise, and their inverses would dominate the distance.
SHRINKAGE = 0.1
# Where embeddings have more, distances are taken in the directions in which training images differ most once they are
# whitened: a quarter of 512 takes half the time and detects as much or more. Bundles until 2026-11-29 have all of them.
DIMENSIONS = 128
# What the largest logit counts, the distance counting 1. With 1, as bundles had until 2026-11-29, flowers of other
# websites were taken for something else more often (docs/LOG.md); between 2 and 4 it hardly matters.
LOGIT_SHARE = 2.0


@dataclass(frozen=True)
class Reference:
    """Statistics of the training images' embeddings, all float32.

    ``whitening`` is (K, D), K <= D: distances are Euclidean behind it. ``class_means`` is (C, K), already whitened.
    ``distances`` is (Q,): the validation images' strangeness, ascending. ``logit_weight`` is (1,): what one unit
    of the largest logit takes off a distance; 0 in older bundles, whose novelty is the distance alone.
    """

    class_means: np.ndarray
    whitening: np.ndarray
    distances: np.ndarray
    logit_weight: np.ndarray = field(default_factory=lambda: np.zeros(1, np.float32))

    @classmethod
    def fit(
        cls,
        embeddings: np.ndarray,
        labels: np.ndarray,
        validation: np.ndarray,
        validation_logits: np.ndarray,
        quantiles: int = 1001,
        weights: np.ndarray | None = None,
    ) -> "Reference":
        """Estimate the statistics.

        Args:
            embeddings: (N, D) of the training images, without augmentation.
            labels: (N,) their label indices; every index from 0 to the largest occurs.
            validation: (M, D) of the validation images.
            validation_logits: (M, C) of the same.
            quantiles: how many of the validation images' values are kept, evenly spaced in rank.
            weights: (M,) how much each of the validation images counts in the ranks; None counts all alike.
        """
        classes = int(labels.max()) + 1
        means = np.stack([embeddings[labels == index].mean(0) for index in range(classes)]).astype(np.float64)
        centred = embeddings.astype(np.float64) - means[labels]
        covariance = centred.T @ centred / len(centred)
        dimensions = len(covariance)
        ridge = SHRINKAGE * np.trace(covariance) / dimensions
        covariance = (1 - SHRINKAGE) * covariance + ridge * np.eye(dimensions)
        values, vectors = np.linalg.eigh(covariance)
        whitening = (vectors / np.sqrt(values)) @ vectors.T
        if dimensions > DIMENSIONS:  # eigh sorts the variances of the directions, the largest last
            whitening = np.linalg.eigh(np.cov(whitening @ embeddings.T))[1][:, -DIMENSIONS:].T @ whitening
        plain = cls((means @ whitening.T).astype(np.float32), whitening.astype(np.float32), np.zeros(1, np.float32))
        spread = float(np.std([plain.distance(embedding) for embedding in validation]))
        certainty = float(np.std(validation_logits.max(1)))
        weight = np.array([LOGIT_SHARE * spread / certainty if certainty else 0], np.float32)
        weighted = replace(plain, logit_weight=weight)
        strangeness = [weighted.strangeness(*image) for image in zip(validation, validation_logits, strict=True)]
        ranks = np.linspace(0, 1, min(quantiles, len(strangeness)))
        if weights is None or np.ptp(weights) == 0:
            values = np.quantile(strangeness, ranks)
        else:
            values = np.quantile(strangeness, ranks, method="inverted_cdf", weights=weights)
        return replace(weighted, distances=values.astype(np.float32))

    def distance(self, embedding: np.ndarray) -> float:
        """Return the distance of one embedding (D,) to the nearest class mean, in standard deviations.

        One at a time on purpose: a matrix product of a whole batch rounds differently for different batch sizes.
        """
        offsets = self.class_means - self.whitening @ embedding.astype(np.float32)  # (C, K)
        return float(np.sqrt(np.einsum("cd,cd->c", offsets, offsets).min()))

    def strangeness(self, embedding: np.ndarray, logits: np.ndarray) -> float:
        """Return the distance of one image's embedding (D,), less its largest logit (C,) by weight."""
        return self.distance(embedding) - float(self.logit_weight[0]) * float(logits.max())

    def novelty(self, embedding: np.ndarray, logits: np.ndarray) -> float:
        """Return the share of validation images, 0-1, that are less strange than this image."""
        less = np.searchsorted(self.distances, self.strangeness(embedding, logits))
        return float(less) / len(self.distances)

    def save(self, path: Path) -> None:
        """Write the statistics as safetensors."""
        save_file({name: np.ascontiguousarray(values) for name, values in vars(self).items()}, path)

    @classmethod
    def load(cls, path: Path) -> "Reference":
        """Read the statistics; BundleError when they are missing or incomplete."""
        try:
            return cls(**load_file(path))
        except (OSError, SafetensorError, TypeError) as error:
            raise BundleError(f"cannot read the reference statistics {path}: {error}") from error
