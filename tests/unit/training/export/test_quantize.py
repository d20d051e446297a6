from pathlib import Path

import pytest
import torch

from tests.unit.conftest import INPUT, TinyBundle
from training.export.onnx import export
from training.export.quantize import quantize
from visionserve import network
from visionserve.errors import BundleError
from visionserve.model_card import Input


def test_a_normalisation_without_one_integer_zero_point_is_refused(tiny: TinyBundle, tmp_path: Path) -> None:
    imagenet = Input(32, 1.0, network.IMAGENET_MEAN, network.IMAGENET_STD)
    export(tiny.network, imagenet, tmp_path / "fp32.onnx")
    with pytest.raises(BundleError, match="one integer zero point"):
        quantize(tmp_path / "fp32.onnx", [tiny.images], tmp_path / "int8.onnx")


def test_a_half_precision_export_leaves_the_network_as_it_was(tiny: TinyBundle, tmp_path: Path) -> None:
    export(tiny.network, INPUT, tmp_path / "fp16.onnx", half=True)
    assert {parameter.dtype for parameter in tiny.network.parameters()} == {torch.float32}
