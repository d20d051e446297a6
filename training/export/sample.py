"""Sample: a small copy of one test image beside the bundles, which the launcher sends as the first request.

A service of cats and dogs that is tried with a flower answers nonsense in its first line. The copy stays on this
machine: it is in no bundle, no archive and no tracker, because a data set's licence may not let it go further.
"""

import logging
from pathlib import Path

import numpy as np
from PIL import Image

from training.data.cache import read
from training.data.manifest import Manifest
from visionserve.classifier import Classifier
from visionserve.files import atomic_write
from visionserve.images import decode

FOLDER = ".samples"  # as in launcher/self_test.py and the Makefile
SIDE = 320  # pixels of the longer side at most
_TRIED = 20
_log = logging.getLogger(__name__)


def write(bundle: Path, manifest: Manifest) -> Path:
    """Write .samples/NAME.jpg beside a bundle, from the first of its test images that it recognises; return the path.

    Where it recognises none of twenty, the first is taken. What a camera wrote into the file is left out.

    Args:
        bundle: the folder of a bundle.
        manifest: its images, of which one or more test.
    """
    classifier, targets = Classifier.load(bundle), manifest.targets()
    indices = manifest.part("test")
    tried = [indices[position] for position in np.random.default_rng(0).permutation(len(indices))[:_TRIED]]
    chosen = next(
        (index for index in tried if _recognised(classifier, _file(manifest, index), targets[index])), tried[0]
    )
    path = bundle.parent / FOLDER / f"{classifier.card.name}.jpg"
    image = Image.fromarray(decode(read(_file(manifest, chosen))))
    image.thumbnail((SIDE, SIDE))
    with atomic_write(path) as unfinished:
        image.save(unfinished, "JPEG", quality=90)
    _log.info(
        "%s is a small copy of the test image %s, for the first answer of a service", path, _file(manifest, chosen)
    )
    return path


def _recognised(classifier: Classifier, file: Path, target: int) -> bool:
    answer = classifier.classify(classifier.prepare(read(file))[None])[0]
    return int(answer.probabilities.argmax()) == target


def _file(manifest: Manifest, index: int) -> Path:
    return manifest.root / manifest.rows[index].path
