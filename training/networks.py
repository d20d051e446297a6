"""Networks of bundles as PyTorch modules, and synthetic images to run them on."""

from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from visionserve import network
from visionserve.engines import WEIGHTS, Outputs
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import ModelCard

SYNTHETIC_IMAGES = 12


def load_network(bundle: Path) -> torch.nn.Module:
    """Return the bundle's fp32 network with its weights, in evaluation mode.

    Raises:
        BundleError: the weights are missing or are not those of the card's network.
    """
    card = ModelCard.load(bundle / CARD)
    return network.load(card.architecture, len(card.labels), bundle / WEIGHTS)


def fp32_outputs(net: torch.nn.Module, card: ModelCard, images: np.ndarray) -> Outputs:
    """Return the fp32 network's outputs for uint8 RGB images (B, S, S, 3)."""
    form = network.ExportForm(net, card.input.mean, card.input.std).eval()
    with torch.inference_mode():
        logits, class_maps, embedding = form(torch.from_numpy(images))
    return Outputs(logits.numpy(), class_maps.numpy(), embedding.numpy())


def multiplications(net: torch.nn.Module, size: int) -> int:
    """Return how often convolutions and linear layers multiply for one image of ``size`` x ``size`` pixels."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, 3, size, size))
    flops: int = counter.get_total_flops()
    return flops // 2  # it counts a multiplication and its addition as two


def synthetic_images(size: int, count: int = SYNTHETIC_IMAGES) -> np.ndarray:
    """Return (count, size, size, 3) uint8: flowers of rings and petals in many colours, on a meadow.

    Computed in whole numbers only: the same pixels on every machine and with every library version.
    """
    rows, columns = np.mgrid[0:size, 0:size]
    return np.stack([_flower(rows, columns, size, seed) for seed in range(count)])


def _flower(rows: np.ndarray, columns: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Return one image (size, size, 3) uint8; ``seed`` determines colours, petals and position."""
    # The raw stream is fixed; NumPy's distributions may change between releases.
    numbers = np.random.PCG64(seed).random_raw(16) % 256
    down = rows - size // 2 - (int(numbers[0]) - 128) * size // 1024
    right = columns - size // 2 - (int(numbers[1]) - 128) * size // 1024
    distance = (down * down + right * right) * 64 // (size * size)  # 0 at the centre, 16 at half the side
    petals = 3 + int(numbers[2]) % 6
    wave = (down * petals % size) * (right * petals % size) * 8 // (size * size)  # 0-7, a texture
    meadow = np.stack([wave * 4 + 20, wave * 10 + 60 + int(numbers[3]) // 4, wave * 4 + 10], axis=-1)
    flower = np.stack([(int(numbers[4 + c]) + wave * 6) % 256 for c in range(3)], axis=-1)
    heart = np.stack([np.full_like(wave, int(numbers[7 + c])) for c in range(3)], axis=-1)
    image = np.where((distance + wave < 12)[..., None], flower, meadow)
    image = np.where((distance < 1 + int(numbers[10]) % 3)[..., None], heart, image)
    return image.astype(np.uint8)
