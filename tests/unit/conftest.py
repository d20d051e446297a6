"""A three-class network on 32 x 32 pixels, exported and quantized once for all unit tests."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from training.export.onnx import export
from training.export.quantize import quantize
from visionserve import network
from visionserve.model_card import Input, ModelCard
from visionserve.novelty import Reference

LABELS = ("circle", "square", "triangle")
INPUT = Input(size=32, crop=1.0, mean=network.MEAN, std=network.STD)


@dataclass(frozen=True)
class TinyBundle:
    """A bundle's directory, and the eager network that it was made from."""

    directory: Path
    network: nn.Module
    images: np.ndarray  # (12, 32, 32, 3) uint8


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyBundle:
    """Build a whole bundle around a ResNet-18 with random weights."""
    directory = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    eager = network.build("resnet18", len(LABELS)).eval()
    images = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    export(eager, INPUT, directory / "model.fp32.onnx")
    quantize(directory / "model.fp32.onnx", [images], directory / "model.int8.onnx")
    embeddings = np.random.default_rng(1).normal(size=(60, 512)).astype(np.float32)
    logits = np.random.default_rng(2).normal(size=(20, len(LABELS)))
    reference = Reference.fit(embeddings, np.arange(60) % 3, embeddings[:20] * 1.5, logits)
    reference.save(directory / "reference.safetensors")
    ModelCard("shapes", "1.0", "resnet18", LABELS, INPUT, temperature=2.0).save(directory / "card.json")
    return TinyBundle(directory, eager, images)
