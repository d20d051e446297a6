"""Quantize: the fp32 ONNX file -> int8 (uint8 activations, int8 weights per output channel), calibrated on images.

The graph is cut behind its normalisation, quantized by ONNX Runtime's static quantizer, and joined to its uint8 input
again: with one integer zero point (the card's mean x 255) and one step (1 / (std x 255)) the pixels already are the
quantized input, so neither a normalisation nor a QuantizeLinear runs on them:

    images (N, S, S, 3) uint8 -> DequantizeLinear(1/58, 124) -> Transpose -> Conv ... : fused to QLinearConv at load

The classifier and the poolings behind it stay in float: 0.1 % of the work, and the probabilities depend on them.
"""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from training.export.onnx import IMAGES, NORMALISED
from visionserve import engines
from visionserve.errors import BundleError

engines.disable_telemetry()  # before ONNX Runtime is imported

from onnxruntime.quantization import (  # noqa: E402
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: E402


def quantize(
    fp32: Path,
    images: Iterable[np.ndarray],
    int8: Path,
    *,
    reduce_range: bool = True,
    percentile: float | None = None,
) -> None:
    """Write the int8 form of ``fp32``, calibrated on ``images``: batches of uint8 RGB (B, S, S, 3).

    Args:
        reduce_range: keep weights to 7 bits. Without it, processors that multiply uint8 by int8 with 16-bit
            intermediate sums (AVX2, AVX-512 without VNNI) saturate and give wrong results (ONNX Runtime's
            documentation, "Quantization", section on U8S8).
        percentile: clip activations at this percentile of the calibration values; None takes their extremes.

    Raises:
        BundleError: the normalisation has no single integer zero point.
    """
    model = onnx.load(fp32)
    scale, zero_point = _pixel_quantization(model.graph)
    with tempfile.TemporaryDirectory() as folder:
        core, prepared = Path(folder, "core.onnx"), Path(folder, "prepared.onnx")
        onnx.save(_cut_normalisation(model), core)
        quant_pre_process(str(core), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(int8),
            _CalibrationImages(images, scale, zero_point),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Add", "MaxPool", "Concat", "Relu"],
            nodes_to_exclude=_classifiers(onnx.load(prepared).graph),
            per_channel=True,
            reduce_range=reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax if percentile is None else CalibrationMethod.Percentile,
            extra_options=_options(scale, zero_point, percentile),
        )
    joined = _join_pixels(onnx.load(int8), model.graph.input[0])
    onnx.checker.check_model(joined, full_check=True)
    onnx.save(joined, int8)


class _CalibrationImages(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime ships no types
    """Feeds calibration batches in the network's own, normalised input."""

    def __init__(self, batches: Iterable[np.ndarray], scale: float, zero_point: int) -> None:
        self._feeds: Iterator[dict[str, np.ndarray]] = (
            {NORMALISED: ((batch.astype(np.float32) - zero_point) * scale).transpose(0, 3, 1, 2)} for batch in batches
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def _options(scale: float, zero_point: int, percentile: float | None) -> dict[str, Any]:
    pixels = {"scale": np.array(scale, np.float32), "zero_point": np.array(zero_point, np.uint8)}
    options: dict[str, Any] = {"TensorQuantOverrides": {NORMALISED: [pixels]}, "ActivationSymmetric": False}
    return options if percentile is None else options | {"CalibPercentile": percentile}


def _pixel_quantization(graph: onnx.GraphProto) -> tuple[float, int]:
    """Return (scale, zero point) under which the raw pixels are the quantized normalised input."""
    constants = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    mean, std = constants["normalise.mean"].ravel(), constants["normalise.std"].ravel()
    zero_point = round(float(mean[0]))
    if np.ptp(mean) > 1e-3 or np.ptp(std) > 1e-3 or abs(float(mean[0]) - zero_point) > 1e-3:
        raise BundleError(f"int8 needs one integer zero point for all channels, not mean {mean} std {std} (of 255)")
    return 1.0 / float(std[0]), zero_point


def _cut_normalisation(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose input is the normalised image, (N, 3, S, S) float."""
    core = onnx.ModelProto()
    core.CopyFrom(model)
    graph = core.graph
    batch, size = (graph.input[0].type.tensor_type.shape.dim[axis] for axis in (0, 1))
    shape = [batch.dim_param, 3, size.dim_value, size.dim_value]
    for collection in (graph.node, graph.initializer):
        for entry in [entry for entry in collection if entry.name.startswith("normalise.")]:
            collection.remove(entry)
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(NORMALISED, TensorProto.FLOAT, shape))
    return core


def _classifiers(graph: onnx.GraphProto) -> list[str]:
    """Return the name of the convolution that makes the class maps; none where a linear layer is the classifier."""
    return [node.name for node in graph.node if node.op_type == "Conv" and "class_maps" in node.output]


def _join_pixels(model: onnx.ModelProto, images: onnx.ValueInfoProto) -> onnx.ModelProto:
    """Feed uint8 images (N, S, S, 3) straight into the first DequantizeLinear."""
    graph = model.graph
    quantize_node = next(node for node in graph.node if node.op_type == "QuantizeLinear" and NORMALISED in node.input)
    dequantize = next(node for node in graph.node if node.input and node.input[0] == quantize_node.output[0])
    planes = dequantize.output[0]
    dequantize.input[0] = IMAGES
    dequantize.output[0] = "pixels"
    graph.node.remove(quantize_node)
    index = list(graph.node).index(dequantize) + 1
    graph.node.insert(index, helper.make_node("Transpose", ["pixels"], [planes], "planes", perm=[0, 3, 1, 2]))
    del graph.input[:]
    graph.input.append(images)
    del graph.value_info[:]
    return model
