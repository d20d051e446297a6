"""Export: an eager network -> an ONNX file that takes uint8 images and gives logits, class maps and embedding.

    images (N, S, S, 3) uint8 -> Transpose -> Cast -> Sub -> Div = normalised (N, 3, S, S) -> the network -> outputs

The normalisation is put in front here, node by node, so that quantize.py can find it and cut there.
"""

import copy
import logging
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from visionserve.engines import OUTPUTS, PART_MAPS
from visionserve.model_card import Input
from visionserve.network import ExportForm
from visionserve.part_layer import PartLayer

OPSET = 20
IMAGES = "images"
NORMALISED = "normalised"


class _Core(nn.Module):
    """ExportForm without its normalisation."""

    def __init__(self, form: ExportForm) -> None:
        super().__init__()
        self.form = form

    def forward(self, normalised: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.form.from_normalised(normalised)


def export(
    network: nn.Module, card_input: Input, path: Path, *, half: bool = False, parts: PartLayer | None = None
) -> None:
    """Write ``network`` as an ONNX file with a free batch size; ``half`` computes in 16-bit floats.

    Input ``images`` is uint8 RGB (N, S, S, 3); the outputs are float32 in either precision: ``logits`` (N, C),
    ``class_maps`` (N, C, h, w), ``embedding`` (N, D) and, with a layer of parts, ``part_maps`` (N, P, h, w).
    """
    form = ExportForm(network, card_input.mean, card_input.std).eval()
    form = copy.deepcopy(form).half() if half else form
    form.parts = parts
    core = _trace(_Core(form).eval(), card_input.size, half, OUTPUTS if parts is None else [*OUTPUTS, PART_MAPS])
    graph = core.graph
    _prepend_normalisation(graph, card_input, np.dtype(np.float16 if half else np.float32))
    del graph.value_info[:]
    _forget_source(graph)
    onnx.checker.check_model(core, full_check=True)
    onnx.save(core, path)


def _quiet() -> None:
    """Leave out the exporter's notes on its passes: they tell a user nothing."""
    for name in ("onnx_ir", "onnxscript", "torch.onnx"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _trace(core: nn.Module, size: int, half: bool, outputs: list[str]) -> onnx.ModelProto:
    example = torch.zeros(2, 3, size, size, dtype=torch.float16 if half else torch.float32)
    _quiet()
    program = torch.onnx.export(
        core,
        (example,),
        dynamo=True,
        opset_version=OPSET,
        input_names=[NORMALISED],
        output_names=outputs,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    if program is None:
        raise RuntimeError("the exporter returned no program")
    return program.model_proto


def _forget_source(graph: onnx.GraphProto) -> None:
    """Remove the exporter's notes: stack traces, which make the same network other bytes in another folder."""
    del graph.metadata_props[:]
    for entry in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        del entry.metadata_props[:]
        entry.doc_string = ""


def _prepend_normalisation(graph: onnx.GraphProto, card_input: Input, dtype: np.dtype) -> None:
    """Turn the graph's float input into uint8 images, normalised as the card says."""
    size = card_input.size
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(IMAGES, TensorProto.UINT8, [batch, size, size, 3]))
    for name, values in (("mean", card_input.mean), ("std", card_input.std)):
        constant = (np.asarray(values) * 255).astype(dtype).reshape(1, 3, 1, 1)
        graph.initializer.append(numpy_helper.from_array(constant, f"normalise.{name}"))
    kind = helper.np_dtype_to_tensor_dtype(dtype)
    steps = [
        helper.make_node("Transpose", [IMAGES], ["normalise.planes"], "normalise.transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["normalise.planes"], ["normalise.pixels"], "normalise.cast", to=kind),
        helper.make_node("Sub", ["normalise.pixels", "normalise.mean"], ["normalise.centred"], "normalise.sub"),
        helper.make_node("Div", ["normalise.centred", "normalise.std"], [NORMALISED], "normalise.div"),
    ]
    for index, node in enumerate(steps):
        graph.node.insert(index, node)
