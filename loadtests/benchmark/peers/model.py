"""What all peers share: encoded images -> labels, with visionserve's decode and ONNX file and nothing else of it.

No novelty, no metrics, no limits on requests: a peer does less than visionserve, so the comparison favours it.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from loadtests.benchmark import peers
from visionserve.classifier import Classifier, softmax
from visionserve.engines import Runtime


class Model:
    """Answers batches of encoded images."""

    def __init__(self) -> None:
        runtime = cast(Runtime, os.environ[peers.RUNTIME])
        self._classifier = Classifier.load(Path(os.environ[peers.ARCHIVE]), threads=1, runtime=runtime)

    def answer(self, bodies: Sequence[bytes]) -> list[bytes]:
        """Return a JSON answer for each body."""
        images = np.stack([self._classifier.prepare(body) for body in bodies])
        card = self._classifier.card
        answers = []
        for logits in self._classifier.engine.run(images).logits:
            probabilities = softmax(logits / card.temperature)
            best = np.argsort(-probabilities)[:5]
            entries = [{"label": card.labels[i], "probability": round(float(probabilities[i]), 6)} for i in best]
            answers.append(json.dumps({"predictions": entries}).encode())
        return answers


def workers() -> int:
    """How many processes answer."""
    return int(os.environ[peers.WORKERS])


def batch() -> int:
    """The largest batch."""
    return int(os.environ[peers.BATCH])
