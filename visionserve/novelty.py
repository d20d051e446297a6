"""Novelty: how unlike the training photographs an image is, as a percentile of the validation photographs.

The Mahalanobis distance of its embedding to the nearest class mean under one covariance for all classes (Lee et al.
2018, arXiv 1807.03888, equation 2, at the last layer), looked up among the validation photographs' own distances:
0.5 is the most ordinary of photographs, 1.0 further away than any of them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from visionserve.errors import BundleError

FILE_NAME = "reference.safetensors"
# Shrinkage of the covariance towards a multiple of the identity: with a few thousand photographs and 512 dimensions
# the smallest eigenvalues are noise, and their inverses would dominate the distance.
SHRINKAGE = 0.1


@dataclass(frozen=True)
class Reference:
    """Statistics of the training photographs' embeddings, all float32.

    ``whitening`` is (D, D): distances are Euclidean behind it. ``class_means`` is (C, D), already whitened.
    ``distances`` is (Q,): the validation photographs' distances, ascending.
    """

    class_means: np.ndarray
    whitening: np.ndarray
    distances: np.ndarray

    @classmethod
    def fit(
        cls, embeddings: np.ndarray, labels: np.ndarray, validation: np.ndarray, quantiles: int = 1001
    ) -> "Reference":
        """Estimate the statistics.

        Args:
            embeddings: (N, D) of the training photographs, without augmentation.
            labels: (N,) their label indices; every index from 0 to the largest occurs.
            validation: (M, D) of the validation photographs.
            quantiles: how many of the validation distances are kept, evenly spaced in rank.
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
        plain = cls((means @ whitening).astype(np.float32), whitening.astype(np.float32), np.zeros(1, np.float32))
        found = np.array([plain.distance(embedding) for embedding in validation])
        ranks = np.linspace(0, 1, min(quantiles, len(found)))
        return cls(plain.class_means, plain.whitening, np.quantile(found, ranks).astype(np.float32))

    def distance(self, embedding: np.ndarray) -> float:
        """Return the distance of one embedding (D,) to the nearest class mean, in standard deviations.

        One at a time on purpose: a matrix product of a whole batch rounds differently for different batch sizes.
        """
        offsets = self.class_means - self.whitening @ embedding.astype(np.float32)  # (C, D)
        return float(np.sqrt(np.einsum("cd,cd->c", offsets, offsets).min()))

    def novelty(self, embedding: np.ndarray) -> float:
        """Return the share of validation photographs, 0-1, that lie nearer to their class mean than this one (D,)."""
        nearer = np.searchsorted(self.distances, self.distance(embedding))
        return float(nearer) / len(self.distances)

    def save(self, path: Path) -> None:
        """Write the statistics as safetensors."""
        tensors = {
            "class_means": self.class_means,
            "whitening": self.whitening,
            "distances": self.distances,
        }
        save_file({name: np.ascontiguousarray(values) for name, values in tensors.items()}, path)

    @classmethod
    def load(cls, path: Path) -> "Reference":
        """Read the statistics; BundleError when they are not there or not complete."""
        try:
            return cls(**load_file(path))
        except (OSError, SafetensorError, TypeError) as error:
            raise BundleError(f"no usable reference statistics at {path}: {error}") from error
