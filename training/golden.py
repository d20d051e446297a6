"""Golden answers: what the fp32 network says about images that the project draws itself.

They travel in the bundle, so whoever packages it elsewhere, years later, can prove that the same network answers. The
drawing uses whole numbers only: the same pixels on every machine.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from visionserve import network
from visionserve.classifier import softmax
from visionserve.engines import Outputs
from visionserve.errors import BundleError
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import ModelCard

FILE_NAME = "golden.json"
WEIGHTS = "weights.safetensors"
COUNT = 12
_TOP = 3
_DECIMALS = 6


def draw(size: int, count: int = COUNT) -> np.ndarray:
    """Return drawn images, (count, size, size, 3) uint8: flowers of rings and petals in many colours, on a meadow."""
    rows, columns = np.mgrid[0:size, 0:size]
    return np.stack([_flower(rows, columns, size, seed) for seed in range(count)])


def _flower(rows: np.ndarray, columns: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Return one image (size, size, 3) uint8; ``seed`` chooses colours, petals and place."""
    # The raw stream is fixed for ever; what NumPy's distributions make of it may change between releases.
    numbers = np.random.PCG64(seed).random_raw(16) % 256
    down = rows - size // 2 - (int(numbers[0]) - 128) * size // 1024
    right = columns - size // 2 - (int(numbers[1]) - 128) * size // 1024
    distance = (down * down + right * right) * 64 // (size * size)  # 0 at the heart, 16 at half the side
    petals = 3 + int(numbers[2]) % 6
    wave = (down * petals % size) * (right * petals % size) * 8 // (size * size)  # 0-7, a texture
    meadow = np.stack([wave * 4 + 20, wave * 10 + 60 + int(numbers[3]) // 4, wave * 4 + 10], axis=-1)
    flower = np.stack([(int(numbers[4 + c]) + wave * 6) % 256 for c in range(3)], axis=-1)
    heart = np.stack([np.full_like(wave, int(numbers[7 + c])) for c in range(3)], axis=-1)
    picture = np.where((distance + wave < 12)[..., None], flower, meadow)
    picture = np.where((distance < 1 + int(numbers[10]) % 3)[..., None], heart, picture)
    return picture.astype(np.uint8)


def eager(bundle: Path) -> torch.nn.Module:
    """Return the bundle's fp32 network with its weights, ready to evaluate.

    Raises:
        BundleError: the weights are missing or are not those of the card's network.
    """
    card = ModelCard.load(bundle / CARD)
    net = network.build(card.architecture, len(card.labels))
    try:
        weights = load_file(bundle / WEIGHTS)
        network.adopt_widths(net, weights)
        net.load_state_dict(
            {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
        )
    except (OSError, RuntimeError) as error:
        raise BundleError(
            f"{bundle / WEIGHTS} does not fit {card.architecture} with {len(card.labels)} labels: {error}"
        ) from error
    return net.eval()


def reference_outputs(net: torch.nn.Module, card: ModelCard, images: np.ndarray) -> Outputs:
    """Return what the fp32 network says about uint8 RGB images (B, S, S, 3)."""
    form = network.ExportForm(net, card.input.mean, card.input.std).eval()
    with torch.inference_mode():
        logits, class_maps, embedding = form(torch.from_numpy(images))
    return Outputs(logits.numpy(), class_maps.numpy(), embedding.numpy())


def probabilities(logits: np.ndarray, card: ModelCard) -> np.ndarray:
    """Return calibrated probabilities (B, C) of logits (B, C)."""
    return np.stack([softmax(row / card.temperature) for row in logits])


def write(bundle: Path) -> None:
    """Write golden.json beside the weights: for each drawn image its most probable labels, by the fp32 network."""
    card = ModelCard.load(bundle / CARD)
    found = probabilities(reference_outputs(eager(bundle), card, draw(card.input.size)).logits, card)
    content = [_entry(row, card) for row in found]
    (bundle / FILE_NAME).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read(bundle: Path) -> list[list[dict[str, Any]]]:
    """Return the golden answers: per image a list of {"label", "probability"}; BundleError when there are none."""
    try:
        content: list[list[dict[str, Any]]] = json.loads((bundle / FILE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(
            f"no golden answers in {bundle} ({error}); make them: python -m training golden --bundle {bundle}"
        ) from error
    return content


def _entry(row: np.ndarray, card: ModelCard) -> list[dict[str, Any]]:
    best = np.argsort(-row, kind="stable")[:_TOP]
    return [{"label": card.labels[i], "probability": round(float(row[i]), _DECIMALS)} for i in best]
