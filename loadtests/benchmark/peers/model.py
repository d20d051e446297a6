"""What all peers share: encoded photographs -> labels, with our decode and our ONNX file and nothing else of ours.

No novelty, no metrics, no limits on requests: a peer does less than our service, so the comparison favours it.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from loadtests.benchmark.peers import settings
from visionserve.classifier import Classifier, softmax
from visionserve.engines import Runtime


class Model:
    """Answers batches of encoded photographs."""

    def __init__(self) -> None:
        runtime = cast(Runtime, os.environ[settings.RUNTIME])
        self._classifier = Classifier.load(Path(os.environ[settings.ARCHIVE]), threads=1, runtime=runtime)

    def answer(self, bodies: Sequence[bytes]) -> list[bytes]:
        """Return a JSON answer for each body."""
        images = np.stack([self._classifier.prepare(body) for body in bodies])
        card = self._classifier.card
        found = []
        for logits in self._classifier.engine.run(images).logits:
            probabilities = softmax(logits / card.temperature)
            best = np.argsort(-probabilities)[:5]
            entries = [{"label": card.labels[i], "probability": round(float(probabilities[i]), 6)} for i in best]
            found.append(json.dumps({"predictions": entries}).encode())
        return found


def workers() -> int:
    """How many processes to answer with."""
    return int(os.environ[settings.WORKERS])


def batch() -> int:
    """How many images to take at once, at most."""
    return int(os.environ[settings.BATCH])
