"""Acceptance on photographs: what a new bundle must prove on its validation split before it may be shipped.

The gates that need no photographs are in gates.py; these two do, so they run when a bundle is made.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.data.cache import read
from training.export.gates import Finding
from visionserve.classifier import Classifier
from visionserve.errors import BundleError
from visionserve.images import decode

TOP1_POINTS = 0.5  # what int8 may lose, in points of validation top-1
DECODE_SHARE = 0.005  # of the photographs, those whose label the scaled decode may change
FREE = 1  # photographs that may always change: of fewer than 200, one is over half a point and tells nothing


def int8_gate(int8: np.ndarray, fp32: np.ndarray, targets: np.ndarray) -> Finding:
    """Compare the accuracy of two sets of logits (N, C) of the same photographs."""
    more_right = int((fp32.argmax(1) == targets).sum() - (int8.argmax(1) == targets).sum())
    allowed = max(TOP1_POINTS, 100 * FREE / len(targets))
    return Finding("int8", 100 * more_right / len(targets), allowed, "points of validation top-1 lost")


def decode_gate(classifier: Classifier, files: Sequence[Path]) -> Finding:
    """Compare the labels given after the scaled decode with those after decoding every pixel."""
    changed = 0
    for file in files:
        data = read(file)
        fast = classifier.prepare(data)
        full = classifier.preprocessing(decode(data, limits=classifier.limits))
        if not np.array_equal(fast, full):  # most photographs are too small to be scaled at all
            one, other = classifier.classify(np.stack([fast, full]))
            changed += int(one.probabilities.argmax() != other.probabilities.argmax())
    allowed = max(DECODE_SHARE, FREE / len(files))
    return Finding("decode", changed / len(files), allowed, "share of labels changed by the scaled decode")


def require(findings: Sequence[Finding]) -> None:
    """Raise a BundleError with all the numbers unless every gate is open."""
    if not all(finding.passed for finding in findings):
        raise BundleError("\n".join(str(finding) for finding in findings))
