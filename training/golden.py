"""Golden outputs: the fp32 network's predictions on synthetic images.

They are stored in the bundle: whoever packages it later, on another machine, can prove that the network gives the same
predictions.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from training.networks import fp32_outputs, load_network, synthetic_images
from visionserve.classifier import softmax
from visionserve.errors import BundleError
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import ModelCard

FILE_NAME = "golden.json"
_TOP = 3
_DECIMALS = 6


def probabilities(logits: np.ndarray, card: ModelCard) -> np.ndarray:
    """Return calibrated probabilities (B, C) of logits (B, C)."""
    return np.stack([softmax(row / card.temperature) for row in logits])


def write(bundle: Path) -> None:
    """Write golden.json: for each synthetic image its most probable labels, by the fp32 network."""
    card = ModelCard.load(bundle / CARD)
    outputs = fp32_outputs(load_network(bundle), card, synthetic_images(card.input.size))
    content = [_entry(row, card) for row in probabilities(outputs.logits, card)]
    (bundle / FILE_NAME).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read(bundle: Path) -> list[list[dict[str, Any]]]:
    """Return the golden outputs: per image a list of {"label", "probability"}; BundleError when there are none."""
    try:
        content: list[list[dict[str, Any]]] = json.loads((bundle / FILE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(
            f"no golden outputs in {bundle} ({error}); make them: python -m training golden --bundle {bundle}"
        ) from error
    return content


def _entry(row: np.ndarray, card: ModelCard) -> list[dict[str, Any]]:
    best = np.argsort(-row, kind="stable")[:_TOP]
    return [{"label": card.labels[i], "probability": round(float(row[i]), _DECIMALS)} for i in best]
